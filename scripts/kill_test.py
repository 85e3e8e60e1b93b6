"""Kills trainings at random steps, goes on with them, and compares every number with a run that nobody stopped.

    python scripts/kill_test.py                      20 kills in each of the set-ups
    python scripts/kill_test.py --kills 2 digits     fewer, of one

A kill is SIGKILL from inside the process once a random step is done, up to three in one run. Compared are all losses and
metrics in metrics.csv by their hexadecimal form, and the SHA-256 of the final weights, optimizer state and averaged weights.
CIFAR-10, tiny Shakespeare and Multi30k are read from DLZOO_DATA. The exit code is 1 where anything differs.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import Processes, processes

# every set-up saves now and then in the middle of an epoch, and is killed between two saves
SETUPS: dict[str, list[str]] = {
    "digits": [
        *("model=mlp", "model.dropout=0.2", "data.crop_padding=1", "data.cutout=2", "trainer.max_epochs=4"),
        *("callbacks.checkpoint.every_n_steps=7", "callbacks=early_stopping"),
    ],
    "cifar10": [
        *("experiment=cifar10_resnet", "trainer.max_epochs=2", "trainer.limit_train_batches=16", "trainer.limit_val_batches=2"),
        *(
            "trainer.limit_test_batches=2",
            "data.cutout=8",
            "trainer.val_check_interval=0.5",
            "callbacks.checkpoint.every_n_steps=5",
        ),
    ],
    "everything": [
        *("callbacks=[ema,sam]", "trainer.accumulate_grad_batches=3", "task.mixup=0.4", "task.cutmix=1.0"),
        *("trainer.max_epochs=4", "trainer.gradient_clip_val=1.0", "callbacks.checkpoint.every_n_steps=3", "optimizer=adamw"),
        *("optimizer.lr=0.003", "model=resnet20"),
    ],
    # windows that go on within a pass, dropout, text that is drawn; 12 steps to an epoch, of which one pass holds many
    "language": [
        *("experiment=shakespeare_gpt", "model.dropout=0.2", "data.epoch_size=144", "trainer.max_epochs=3"),
        *("trainer.limit_val_batches=2", "trainer.limit_test_batches=2", "task.sample_length=20"),
        *("trainer.accumulate_grad_batches=2", "callbacks=ema", "callbacks.checkpoint.every_n_steps=5"),
    ],
    # batches of unequal size, a search at each validation
    "translator": [
        *("experiment=multi30k_seq2seq", "data.source_vocab_size=1000", "data.target_vocab_size=1000", "model.width=64"),
        *("model.embedding=32", "trainer.max_epochs=3", "trainer.limit_train_batches=12", "trainer.limit_val_batches=1"),
        *("trainer.limit_test_batches=1", "task.max_length=10", "callbacks.checkpoint.every_n_steps=5"),
    ],
}
COMMON = ["trainer=cpu", "trainer.log_every_n_steps=1", "seed=3"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setups", nargs="*", metavar="SETUP", help=f"{', '.join(SETUPS)}; all of them if left out")
    parser.add_argument("--kills", type=int, default=20, help="in each set-up (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the steps that are killed at")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the report as JSON")
    args = parser.parse_args()
    if unknown := set(args.setups) - set(SETUPS):
        parser.error(f"there is no set-up {', '.join(sorted(unknown))}; there are {', '.join(SETUPS)}")
    report = []
    with processes() as server, tempfile.TemporaryDirectory() as folder:
        for name in args.setups or SETUPS:
            started = time.monotonic()
            found = list(kills(server, Path(folder) / name, SETUPS[name], args.kills, args.seed))
            same = sum(kill["same"] for kill in found)
            row = {"setup": name, "kills": len(found), "bit_identical": same, "seconds": round(time.monotonic() - started, 1)}
            report.append(row | {"overrides": " ".join(SETUPS[name]), "runs": found})
            print(f"{name}: {same} of {len(found)} kills went on bit for bit, {row['seconds']} s", flush=True)
    if args.out:
        from dlzoo.rundir import environment

        content = {"command": "python scripts/kill_test.py", "seed": args.seed, "setups": report, "machine": environment()}
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(row["bit_identical"] < row["kills"] for row in report))


def kills(server: Processes, folder: Path, overrides: list[str], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Kills `count` times, in as many runs as that takes, and yields what was found for each kill."""
    words = ["train", *COMMON, *overrides]
    code, job = server.run(*words, f"run_dir={folder}/straight")
    if code:
        raise SystemExit(f"the run without a kill ended with {code}:\n{job.output}{job.errors}")
    straight = fingerprint(folder / "straight")
    steps = json.loads((folder / "straight" / "summary.json").read_text())["steps"]
    chance = random.Random(f"{seed} {overrides}")
    while count > 0:
        killed = folder / "killed"
        shutil.rmtree(killed, ignore_errors=True)
        points = sorted(chance.sample(range(1, steps), min(count, chance.randint(1, 3))))
        for number, step in enumerate(points):
            start = [*words, f"run_dir={killed}"] if number == 0 else ["resume", killed]
            code, job = server.run(*start, DLZOO_FAULT=f"kill9@step={step}")
            if code != -9:
                raise SystemExit(f"kill at step {step}: the run ended with {code}:\n{job.output}{job.errors}")
        code, job = server.run("resume", killed)
        if code:
            raise SystemExit(f"going on after {points} ended with {code}:\n{job.output}{job.errors}")
        other = fingerprint(killed)
        differs = [key for key in straight if straight[key] != other.get(key)]
        for step in points:
            yield {"step": step, "of": steps, "same": not differs, "differs": differs}
        count -= len(points)


def fingerprint(run: Path) -> dict[str, str]:
    """Every number of a run that has to be the same: rows of metrics.csv in hexadecimal, hashes of the last checkpoint."""
    import torch

    found = {}
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key not in ("seconds", "samples_per_second"):
                    found[f"step {row['step']} {key}"] = float(value).hex()
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "random"):
        if key in content:
            found[key] = digest(content[key])
    found["best"] = digest(torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"])
    return found


def digest(node: Any) -> str:
    """SHA-256 of the tensors and plain values in a tree."""
    import torch

    hashed = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            hashed.update(
                f"{value.dtype}{tuple(value.shape)}".encode() + value.contiguous().view(torch.uint8).numpy().tobytes()
                if value.ndim
                else repr(value.item()).encode()
            )
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                hashed.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            hashed.update(repr(value).encode())

    add(node)
    return hashed.hexdigest()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
