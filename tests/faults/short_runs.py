"""The short run that the fault tests disturb, and what must hold of it afterwards."""

import json
import os
import time
from pathlib import Path

import kill_test

# digits, three epochs of six steps, dropout, crops and cut-outs, a validation of several batches, a save every fourth step
SHORT = (
    *("train", "trainer=cpu", "model=mlp", "model.dropout=0.2", "data.cutout=2", "trainer.max_epochs=3", "seed=5"),
    *("trainer.limit_train_batches=6", "data.eval_batch_size=60", "trainer.log_every_n_steps=1"),
    "callbacks.checkpoint.every_n_steps=4",
)
STEPS = 18


def summary(run: Path) -> dict:
    """summary.json of a run."""
    return json.loads((run / "summary.json").read_text())


def goes_on(server, run: Path, straight: dict[str, str], *words: str) -> str:
    """Resumes a run, and asserts that it ends as the undisturbed one did; returns what it said."""
    code, job = server.run("resume", run, *words)
    assert code == 0, job.errors
    other = kill_test.fingerprint(run)
    assert {key for key in straight if straight[key] != other.get(key)} == set()
    assert summary(run)["status"] == "finished" and summary(run)["steps"] == STEPS
    assert not list((run / "checkpoints").glob(".tmp-*")) and not (run / "run.lock").exists()
    return job.output


def polite(job, *words: str) -> str:
    """What it said in error: a few lines, no traceback, these words."""
    text = job.errors
    lines = text.strip().splitlines()
    assert "Traceback" not in text and len(lines) <= 12, text
    for word in words:
        assert word in text + job.output, f"{word!r} is not in:\n{text}{job.output}"
    return text


def nobody_left(group: int, seconds: float = 12.0) -> bool:
    """Whether every process of a group is gone: torch's loader processes look every five seconds whether theirs is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(entry)
        if not found:
            return True
        time.sleep(0.2)
    return False
