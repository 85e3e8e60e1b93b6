"""Rows 1 to 8 of the table of faults: what ends a process or spoils its checkpoints, and that nothing is lost but time."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from short_runs import SHORT, STEPS, goes_on, nobody_left, polite, summary

from dlzoo import checkpoints


def _step(run, name="last"):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize("point", range(3))
def test_row_01_sigkill_mid_epoch(server, straight, tmp_path, point):
    """kill -9 at three random steps of one run: the same losses and weights, to the last bit, and few steps twice."""
    run, chance = tmp_path / "run", random.Random(point)
    steps = sorted(chance.sample(range(5, STEPS), 3))
    for number, step in enumerate(steps):
        words = (*SHORT, f"run_dir={run}") if number == 0 else ("resume", run)
        code, job = server.run(*words, DLZOO_FAULT=f"kill9@step={step}")
        assert code == -signal.SIGKILL, job.errors
        assert summary(run)["status"] == "running" and 0 <= step - _step(run) < 4 + 1
    goes_on(server, run, straight)


def test_row_01_sigkill_before_the_first_checkpoint(server, straight, tmp_path):
    code, job = server.run(*SHORT, f"run_dir={tmp_path}/run", DLZOO_FAULT="kill9@step=2")
    assert code == -signal.SIGKILL and not list((tmp_path / "run" / "checkpoints").iterdir()), job.errors
    goes_on(server, tmp_path / "run", straight)


def test_row_02_another_number_of_workers(server, tmp_path):
    """Pictures from files: killed with 0 workers, resumed with 2."""
    import kill_test
    from PIL import Image

    chance = random.Random(0)
    for kind in ("ant", "bee"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(24):
            colours = bytes(chance.randrange(256) for _ in range(3 * 12 * 12))
            Image.frombytes("RGB", (12, 12), colours).save(tmp_path / "pictures" / kind / f"{number}.png")
    words = ["train", "experiment=imagefolder_resnet50", "model=mlp", "model.dropout=0.3", f"data.root={tmp_path}/pictures"]
    words += ["data.image_size=16", "data.batch_size=6", "data.num_workers=0", "trainer=cpu", "trainer.max_epochs=2"]
    words += ["trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=2"]
    code, job = server.run(*words, f"run_dir={tmp_path}/straight")
    assert code == 0, job.errors
    code, job = server.run(*words, f"run_dir={tmp_path}/run", DLZOO_FAULT="kill9@step=4")
    assert code == -signal.SIGKILL, job.errors
    code, job = server.run("resume", tmp_path / "run", "data.num_workers=2")
    assert code == 0, job.errors
    assert kill_test.fingerprint(tmp_path / "straight") == kill_test.fingerprint(tmp_path / "run")


@pytest.mark.parametrize("fault", ["sigterm@step=9", "sigterm@step=5", "sigterm@val=2", "sigterm@save=2:bytes=50%"])
def test_row_03_sigterm(server, straight, tmp_path, fault):
    """In training, in the last step of an epoch, in validation, during a save: stopped within a step, nothing lost."""
    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT=fault)
    assert code == 143, job.errors
    polite(job, "stopped by SIGTERM", "resume")
    assert summary(run)["status"] == "interrupted"
    where, number = fault.split("@")[1].split("=")[0], int(fault.split("=")[1].split(":")[0])
    assert _step(run) == {"step": number + 1, "val": 6, "save": _step(run)}[where]
    goes_on(server, run, straight)


def test_row_03_sigterm_while_it_warms_up(server, straight, tmp_path):
    run = tmp_path / "run"
    job = server.start(*SHORT, f"run_dir={run}")
    deadline = time.monotonic() + 30
    while not (run / "run.lock").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    started = time.monotonic()
    job.send(signal.SIGTERM)
    assert server.wait(job) == 143, job.errors
    assert time.monotonic() - started < 5 and "Traceback" not in job.errors
    if (run / "config.yaml").exists():
        goes_on(server, run, straight)


def test_row_03_sigterm_in_the_test(server, straight, tmp_path):
    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="sigterm@test=1")
    assert code == 143, job.errors
    goes_on(server, run, straight)
    assert {"val/loss", "val/acc", "test/loss", "test/acc"} <= set(summary(run)["metrics"])


def test_row_03_sigterm_reaches_the_workers_too(server, tmp_path):
    """SLURM signals every process of a job: the ones that load data must outlive it until the run has saved."""
    from PIL import Image

    for kind in ("ant", "bee"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(40):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "pictures" / kind / f"{number}.png")
    words = ["train", "experiment=imagefolder_resnet50", "model=mlp", f"data.root={tmp_path}/pictures", "data.image_size=32"]
    words += ["data.batch_size=8", "data.num_workers=2", "trainer=cpu", "trainer.max_epochs=500", f"run_dir={tmp_path}/run"]
    job = server.start(*words)
    deadline = time.monotonic() + 60
    while "epoch 2/500" not in job.output and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGTERM)
    assert server.wait(job) == 143, job.errors
    polite(job, "resume")
    assert checkpoints.damage(tmp_path / "run" / "checkpoints" / "last.ckpt") == ""
    assert nobody_left(job.pid)


def test_row_04_ctrl_c(server, straight, tmp_path):
    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="sigint@step=9")
    assert code == 130, job.errors
    polite(job, "Ctrl-C", "once more", "stopped by SIGINT", f"resume {run}")
    assert _step(run) == 10 and (run / "curves.png").is_file() and summary(run)["status"] == "interrupted"
    goes_on(server, run, straight)


def test_row_04_ctrl_c_twice_leaves_at_once(server, tmp_path):
    run = tmp_path / "run"
    words = ["train", "trainer=cpu", "model=resnet110", "data.batch_size=1024", "trainer.max_epochs=9", f"run_dir={run}"]
    job = server.start(*words)
    deadline = time.monotonic() + 60
    while not (run / "samples.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # inside a step of some seconds
    job.send(signal.SIGINT)
    time.sleep(0.2)
    started = time.monotonic()
    job.send(signal.SIGINT)
    assert server.wait(job) == 130 and time.monotonic() - started < 3, job.errors
    assert "leaving at once" in job.errors and "Traceback" not in job.errors


@pytest.mark.parametrize("share", [0, 50, 99])
def test_row_05_sigkill_during_a_save(server, straight, tmp_path, share):
    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT=f"kill9@save=3:bytes={share}%")
    assert code == -signal.SIGKILL, job.errors
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert any(name.startswith(checkpoints.TEMPORARY) for name in left) and "last.ckpt" in left
    assert checkpoints.damage(run / "checkpoints" / "last.ckpt") == ""
    goes_on(server, run, straight)


@pytest.mark.parametrize("damage", ["half", "bit", "empty", "text"])
def test_row_06_a_damaged_newest_checkpoint(server, straight, tmp_path, damage):
    """The one before it is used, the bad one named and kept aside; with none that is good, exit 6."""
    run = tmp_path / "run"
    assert server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="kill9@step=15")[0] == -signal.SIGKILL
    folder = run / "checkpoints"
    assert _step(run) > _step(run, "previous")
    good = (folder / "last.ckpt").read_bytes()
    changed = bytearray(good)
    changed[len(good) // 2] ^= 1
    spoilt = {"half": good[: len(good) // 2], "bit": bytes(changed), "empty": b"", "text": b"no checkpoint"}[damage]
    (folder / "last.ckpt").unlink()  # best.ckpt may be the same file
    (folder / "last.ckpt").write_bytes(spoilt)
    if damage == "half":
        other = tmp_path / "other"
        shutil.copytree(run, other)
        for path in (other / "checkpoints").iterdir():
            path.write_bytes(spoilt)
        code, job = server.run("resume", other)
        assert code == 6, job.errors
        polite(job, "last.ckpt", "previous.ckpt", "no checkpoint")
    said = goes_on(server, run, straight)
    assert "last.ckpt is damaged" in said and "previous.ckpt" in said and (folder / "last.ckpt.bad").exists()


def test_row_07_a_full_disk_now_and_then(server, straight, tmp_path):
    """One save fails half-way: a warning, the old checkpoint is whole, the run ends as it would have."""
    import kill_test

    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="enospc@save=2:bytes=50%")
    assert code == 0, job.errors
    assert job.output.count("could not be written") == 1 and "No space left" in job.output
    other = kill_test.fingerprint(run)
    assert {key for key in straight if straight[key] != other.get(key)} == set()


def test_row_07_a_full_disk_for_good(server, straight, tmp_path):
    """Three failed saves in a row: exit 7, the checkpoint before them is whole and the run goes on from it."""
    run = tmp_path / "run"
    faults = ",".join(f"enospc@save={number}:bytes={number}0%" for number in (3, 4, 5))
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT=faults)
    assert code == 7, job.errors
    polite(job, "3 times in a row", "No space left", "free some space")
    assert checkpoints.damage(run / "checkpoints" / "last.ckpt") == "" and summary(run)["status"] == "failed"
    assert not list((run / "checkpoints").glob(".tmp-*"))
    goes_on(server, run, straight)


def test_row_07_a_real_limit_of_the_system(tmp_path):
    """RLIMIT_FSIZE: the kernel itself refuses the bytes (EFBIG), and the error arrives through torch's writer."""
    import torch

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoints.write({"state_dict": {"w": torch.zeros(100_000)}}, tmp_path / "x.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_row_07_too_little_space_is_told_before_the_first_epoch(server, tmp_path):
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs to be root and to make a mount namespace")
    (tmp_path / "small").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    small = tmp_path / "small"
    command = f"mount -t tmpfs -o size=2m none {small} && exec {sys.executable} -m dlzoo train trainer=cpu run_dir={small}/run"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr
    assert "do not fit" in done.stderr and "epoch 1/" not in done.stdout and "Traceback" not in done.stderr


def test_row_08_a_directory_that_can_not_be_written(server, tmp_path):
    """A file where a folder should be: root may not write there either."""
    (tmp_path / "file").write_text("")
    code, job = server.run(*SHORT, f"run_dir={tmp_path}/file/run")
    assert code == 7
    polite(job, "run_dir=PATH")
    assert "epoch 1/" not in job.output
