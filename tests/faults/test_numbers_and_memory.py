"""Rows 9 to 12, 29, 36 and 37: losses that are not finite, memory, samples that can not be read, configs that do not fit."""

import json
import signal

import pytest
import torch
from short_runs import SHORT, goes_on, nobody_left, polite, summary

from dlzoo import checkpoints


def test_row_09_a_loss_that_is_not_finite(server, straight, tmp_path):
    """Told before the update, with the step, the rate and the last finite loss; the run goes on from before it."""
    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="nan@step=9")
    assert code == 4, job.errors
    polite(job, "the loss is nan", "step 9", "lr 0.", "the last finite loss was", "at step 8", "optimizer.lr")
    assert summary(run)["status"] == "failed"
    for path in (run / "checkpoints").glob("*.ckpt"):
        state = checkpoints.read_checkpoint(path)["state_dict"]
        assert all(value.isfinite().all() for value in state.values()), path
    goes_on(server, run, straight)


def test_row_09_a_rate_that_is_far_too_large(server, tmp_path):
    """No injected fault: the numbers themselves run away."""
    run = tmp_path / "run"
    code, job = server.run(*SHORT, "optimizer.lr=1e20", "scheduler=constant", f"run_dir={run}")
    assert code == 4
    polite(job, "lr 1e+20", "the last finite loss was", "optimizer.lr")
    for path in (run / "checkpoints").glob("*.ckpt"):
        assert all(value.isfinite().all() for value in checkpoints.read_checkpoint(path)["state_dict"].values()), path


def test_row_10_one_bad_batch_may_be_skipped(server, tmp_path):
    run = tmp_path / "run"
    words = [
        "train",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=9",
        "callbacks.finite.on_nonfinite=skip",
    ]
    code, job = server.run(*words, f"run_dir={run}", DLZOO_FAULT="nan@step=3")
    assert code == 0, job.errors
    (skipped,) = json.loads((run / "skipped_batches.json").read_text())
    assert skipped == {"step": 3, "epoch": 0, "batch": 3}
    content = checkpoints.read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert all(value.isfinite().all() for value in content["state_dict"].values())
    code, job = server.run(*words, f"run_dir={tmp_path}/more", DLZOO_FAULT=",".join(f"nan@step={n}" for n in (1, 3, 5, 7)))
    assert code == 4
    polite(job, "after 3 skipped steps", "step 7")


def test_row_11_out_of_memory(server, straight, tmp_path):
    run = tmp_path / "run"
    code, job = server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="oom@step=9")
    assert code == 5
    text = polite(job, "out of memory", "accumulate_grad_batches")
    assert sum(word in text for word in ("data.batch_size=", "trainer.precision=", "trainer.accumulate_grad_batches=")) == 3
    assert "data.batch_size=32" in text, "half of the run's own"
    goes_on(server, run, straight)


def _pictures(folder, count=8):
    from PIL import Image

    for kind in ("ant", "bee"):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (24, 24), (number, 0, 0)).save(folder / kind / f"{number}.jpg")


FOLDER = ("experiment=imagefolder_resnet50", "model=mlp", "data.image_size=16", "data.batch_size=2", "trainer=cpu")


@pytest.mark.parametrize("workers", [0, 2])
def test_row_12_a_corrupt_picture_is_named(server, tmp_path, workers):
    _pictures(tmp_path / "pictures")
    for path in (tmp_path / "pictures").glob("bee/*.jpg"):
        path.write_bytes(path.read_bytes()[:100])
    words = ["train", *FOLDER, f"data.root={tmp_path}/pictures", f"data.num_workers={workers}", f"run_dir={tmp_path}/run"]
    code, job = server.run(*words)
    assert code == 3, job.errors
    polite(job, "bee/", "index", "remove the file")


def test_row_29_a_worker_that_dies_is_told_with_the_sample(server, tmp_path):
    """As when the system kills one for its memory: the file and its index are named, and no process stays behind."""
    _pictures(tmp_path / "pictures")
    words = [
        "train",
        *FOLDER,
        f"data.root={tmp_path}/pictures",
        "data.num_workers=2",
        "data.test_fraction=0",
        "data.val_fraction=0",
    ]
    code, job = server.run(*words, f"run_dir={tmp_path}/run", DLZOO_FAULT="kill9@sample=11")
    assert code == 3, job.errors
    polite(job, "bee/3.jpg (sample index 11)", "data.num_workers=0", "/dev/shm")
    assert nobody_left(job.pid)


def test_row_15_data_and_model_that_do_not_fit(server, tmp_path):
    code, job = server.run("train", "trainer=cpu", "model.num_classes=7", f"run_dir={tmp_path}/run")
    assert code == 2
    polite(job, "model.num_classes is 7", "10")


def test_row_36_a_checkpoint_of_another_model(server, tmp_path):
    assert server.run(*SHORT, "trainer.max_epochs=1", f"run_dir={tmp_path}/run")[0] == 0
    path = tmp_path / "alone.ckpt"
    path.write_bytes((tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes())
    code, job = server.run("train", "trainer=cpu", "model=resnet20", f"ckpt_path={path}", f"run_dir={tmp_path}/other")
    assert code == 6
    polite(job, "another model than resnet20", "missing", "unknown", "alone.ckpt")
    assert not (tmp_path / "other").exists()


def test_row_37_a_config_that_changed(server, straight, tmp_path):
    """The model, the data or the seed: refused. The rate: allowed, logged, and used."""
    run = tmp_path / "run"
    assert server.run(*SHORT, f"run_dir={run}", DLZOO_FAULT="kill9@step=10")[0] == -signal.SIGKILL
    for word, key in (("seed=6", "seed"), ("model.dropout=0.5", "model.dropout"), ("data.cutout=0", "data.cutout")):
        code, job = server.run("resume", run, word)
        assert code == 2, job.errors
        polite(job, key, "not be the same run")
    for word in ("data.batch_size=32", "model.hidden=[3]"):
        assert server.run("resume", run, word)[0] == 2
    other = tmp_path / "other"
    import shutil

    shutil.copytree(run, other)
    code, job = server.run("resume", other, "optimizer.lr=0.05")
    assert code == 0, job.errors
    assert "optimizer.lr: 0.1 -> 0.05" in job.output
    import kill_test

    changed, before = kill_test.fingerprint(other), straight
    assert float.fromhex(changed["step 12 lr"]) == pytest.approx(float.fromhex(before["step 12 lr"]) / 2)
    assert changed["step 5 lr"] == before["step 5 lr"] and changed["state_dict"] != before["state_dict"]
    goes_on(server, run, straight)


def test_row_41_a_package_that_is_not_installed(tmp_path, monkeypatch, capsys):
    import importlib.util

    from dlzoo import cli

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else real(name, *rest))
    assert cli.main(["train", "trainer=cpu", "logger=tensorboard", f"run_dir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err
    assert 'pip install "dlzoo[tensorboard]"' in error and "Traceback" not in error and len(error.splitlines()) <= 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_row_42_no_gpu(server, tmp_path):
    code, job = server.run("train", "trainer=gpu", f"run_dir={tmp_path}/run")
    assert code == 2
    polite(job, "no CUDA GPU", "trainer=cpu_fast")
    code, job = server.run(*SHORT, "trainer=auto", "trainer.max_epochs=1", f"run_dir={tmp_path}/run")
    assert code == 0, job.errors
