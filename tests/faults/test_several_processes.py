"""Rows 16, 17, 24 to 27, 39 and 40: what would run code, several processes, sweeps, exports."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill_test
import pytest
from short_runs import SHORT, STEPS, nobody_left, polite, summary

from dlzoo import checkpoints

ROOT = Path(__file__).resolve().parent.parent.parent
# two processes; a validation set that two do not divide, in batches that do not divide it
TWO = (*SHORT[1:], "trainer=ddp_cpu", "data.val_size=181", "data.eval_batch_size=78")


def _start(*words, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def _end(process, timeout=240):
    out, error = process.communicate(timeout=timeout)
    return process.returncode, out, error


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The undisturbed run of two processes."""
    run = tmp_path_factory.mktemp("two") / "run"
    code, _, error = _end(_start(ROOT / "train.py", *TWO, f"run_dir={run}"))
    assert code == 0, error
    return run


@pytest.mark.parametrize("target", ["os.system", "logging.os.system", "torch.load", "builtins.eval", "dlzoo.run.os.system"])
def test_row_16_a_config_that_would_run_something(server, tmp_path, target):
    """Forty more: tests/test_security.py."""
    code, job = server.run("train", f"model._target_={target}", f"+model.command='touch {tmp_path}/here'", cwd=tmp_path)
    assert code == 9, job.errors
    polite(job, target, "nothing was run")
    assert not (tmp_path / "here").exists()


def test_row_17_a_checkpoint_that_would_run_something(server, tmp_path):
    assert server.run(*SHORT, "trainer.max_epochs=1", f"run_dir={tmp_path}/run")[0] == 0

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/here",)

    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
        path.write_bytes(pickle.dumps(Evil()))
    for words in (("resume", tmp_path / "run", "trainer.max_epochs=2"), ("evaluate", tmp_path / "run")):
        code, job = server.run(*words)
        assert code == 9, job.errors
        polite(job, ".ckpt", "nothing in it was run")
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_row_24_a_process_of_several_dies(two, tmp_path, rank):
    run = tmp_path / "run"
    mark = tmp_path / "struck"
    process = _start(ROOT / "train.py", *TWO, f"run_dir={run}", DLZOO_FAULT=f"kill9@step=9:rank={rank}:file={mark}")
    code, out, error = _end(process)
    assert code not in (0, None) and time.time() - mark.stat().st_mtime < 60
    if rank:  # of the first one the shell tells
        assert "rank 1" in out + error, error
        assert "Traceback" not in error
    assert nobody_left(process.pid, 60)
    assert checkpoints.damage(run / "checkpoints" / "last.ckpt") == ""
    code, out, error = _end(_start("-m", "dlzoo", "resume", run))
    assert code == 0, error
    assert kill_test.fingerprint(run) == kill_test.fingerprint(two)


@pytest.mark.slow
def test_row_25_a_process_of_several_hangs(tmp_path):
    run = tmp_path / "run"
    words = (*TWO, "callbacks.watchdog.silent_seconds=10", f"run_dir={run}")
    mark = tmp_path / "struck"
    process = _start(ROOT / "train.py", *words, DLZOO_FAULT=f"sigstop@step=9:rank=1:file={mark}")
    code, out, error = _end(process)
    assert code not in (0, None) and time.time() - mark.stat().st_mtime < 60
    assert "rank 1" in out + error and "Traceback" not in error, error
    assert nobody_left(process.pid, 20)


@pytest.mark.slow
@pytest.mark.long
def test_row_26_data_that_do_not_divide(two, tmp_path):
    """181 pictures in batches of 78 for two processes: each is counted once, as one process counts them."""
    run = tmp_path / "run"
    code, _, error = _end(_start(ROOT / "train.py", *TWO, "trainer=cpu", "model.dropout=0", f"run_dir={run}"))
    assert code == 0, error
    other = tmp_path / "two"
    code, _, error = _end(_start(ROOT / "train.py", *TWO, "model.dropout=0", f"run_dir={other}"))
    assert code == 0, error
    one, several = summary(run)["metrics"], summary(other)["metrics"]
    for name in ("val/acc", "test/acc"):
        assert round(one[name] * 181 * 360, 6) == round(several[name] * 181 * 360, 6), name
    for name in ("val/loss", "test/loss"):
        assert several[name] == pytest.approx(one[name], rel=1e-5)


@pytest.mark.slow
def test_row_27_resumed_on_another_number_of_processes(tmp_path):
    """Begun by two, gone on with by one: the order of the samples stays, the losses agree to 1e-5."""
    straight, run = tmp_path / "straight", tmp_path / "run"
    words = (*TWO, "model.dropout=0")
    code, _, error = _end(_start(ROOT / "train.py", *words, "trainer=cpu", f"run_dir={straight}"))
    assert code == 0, error
    code, _, error = _end(_start(ROOT / "train.py", *words, f"run_dir={run}", DLZOO_FAULT="sigterm@step=7"))
    assert code == 143, error
    code, _, error = _end(_start("-m", "dlzoo", "resume", run, "trainer.devices=1", "trainer.strategy=auto"))
    assert code == 0, error
    one, other = kill_test.fingerprint(straight), kill_test.fingerprint(run)
    keys = [key for key in one if key.endswith("/loss")]
    assert len(keys) > STEPS
    for key in keys:
        assert float.fromhex(other[key]) == pytest.approx(float.fromhex(one[key]), rel=1e-5), key


@pytest.mark.slow
@pytest.mark.long
def test_row_39_an_interrupted_sweep(tmp_path):
    """A grid whose driver is killed in its second job: the same command, and only what is left is run."""
    words = ["-m", "dlzoo", "train", "-m", "seed=1,2,3", "debug=smoke", "trainer=cpu", "model=mlp", "test=false"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 120
    while len(_finished(tmp_path)) < 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = _finished(tmp_path)
    assert before
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    again = [sys.executable, "-m", "dlzoo", "sweep", str(sweep)]
    done = subprocess.run(again, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = _finished(tmp_path)
    assert sorted(seed for seed, _ in after.values()) == [1, 2, 3]
    assert all(after[path] == before[path] for path in before), "what was finished is not run again"


def _finished(folder):
    found = {}
    for path in folder.glob("runs/**/summary.json"):
        content = json.loads(path.read_text())
        if content["status"] == "finished":
            found[str(path)] = (content["seed"], path.stat().st_mtime_ns)
    return found


def test_row_40_an_export_that_computes_something_else(tmp_path, monkeypatch):
    """One weight is nudged between the export and its check: exit 4, and no file is left."""
    import torch

    import dlzoo
    from dlzoo import verbs
    from dlzoo.errors import NumericalError
    from dlzoo.export import onnx

    words = ["trainer=cpu", "model=mlp", "trainer.max_epochs=1", "trainer.limit_train_batches=2", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    real = onnx.export_onnx

    def nudged(net, images, path, **options):
        with torch.no_grad():
            parameter = next(net.parameters())
            parameter += 0.01
            real(net, images, path, **options)
            parameter -= 0.01

    monkeypatch.setattr(onnx, "export_onnx", nudged)
    with pytest.raises(NumericalError) as caught:
        verbs.export(run.dir)
    assert caught.value.exit_code == 4 and not list((run.dir / "export").iterdir())
