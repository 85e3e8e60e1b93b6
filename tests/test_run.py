"""From a config to a finished run, in this process: what it leaves behind, and that the numbers are right."""

import csv
import json
import math
import os
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import dlzoo
from dlzoo import rundir, verbs, zoo
from dlzoo.errors import CheckpointError, ConfigError, DataError, NumericalError, RunInUseError, StorageError

# digits, five batches an epoch, on one CPU: about two seconds a run
SHORT = ("trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=5", "trainer.log_every_n_steps=2")
FILES = (
    *("config.yaml", "overrides.yaml", "environment.json", "summary.json", "metrics.csv", "train.log"),
    *("curves.png", "samples.png", "confusion.png", "mistakes.png", "example.png"),
    *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
)


def _train(*overrides):
    words = [*SHORT, *overrides]
    return dlzoo.train(dlzoo.compose(*words), words)


def _weights(run, which="last"):
    return torch.load(run.checkpoint(which), weights_only=True)["state_dict"]


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _rows(run):
    with open(run.dir / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drawn():
    """What the last test's confusion matrix was drawn from."""
    return {}


@pytest.fixture(scope="module")
def run(tmp_path_factory, drawn):
    """A finished run of digits that the tests below look at and none of them changes."""
    from dlzoo.callbacks.pictures import labels

    real = labels.confusion

    def confusion(matrix, classes, title, groups=None):
        drawn.update(matrix=matrix.clone(), classes=classes, title=title)
        return real(matrix, classes, title, groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "confusion", confusion)
        patch.setenv("DLZOO_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("runs") / "first"
        return _train(f"run_dir={folder}", "seed=3", "tags=[one]")


# --- the directory


def test_every_file_is_there(run):
    found = {str(path.relative_to(run.dir)) for path in run.dir.rglob("*") if path.is_file()}
    assert found == set(FILES)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".png")])
def test_every_picture_opens(run, name):
    from PIL import Image

    with Image.open(run.dir / name) as image:
        image.load()
        assert image.size == (8, 8) if name == "example.png" else min(image.size) >= 200
        extremes = image.convert("L").getextrema()
        assert extremes[1] - extremes[0] > 60, "an empty picture"


def test_the_config_is_plain_and_whole(run):
    config = yaml.safe_load((run.dir / "config.yaml").read_text())
    assert config == run.config and "${" not in (run.dir / "config.yaml").read_text()
    assert (config["seed"], config["data"]["seed"], config["task"]["seed"]) == (3, 3, 3)
    assert config["run_dir"] == str(run.dir) and config["callbacks"]["report"]["run_dir"] == str(run.dir)
    assert config["optimizer"]["weight_decay"] == 5e-4 and isinstance(config["optimizer"]["weight_decay"], float)
    overrides = yaml.safe_load((run.dir / "overrides.yaml").read_text())
    assert "seed=3" in overrides and "trainer=cpu" in overrides
    # the same command line makes the same config
    again = dlzoo.config.check(dlzoo.compose(*overrides))
    assert again == config


def test_the_metrics_are_a_table_without_gaps_or_repeats(run):
    rows = _rows(run)
    assert list(rows[0])[:3] == ["step", "epoch", "seconds"]
    assert {"train/loss", "lr", "samples_per_second", "val/loss", "val/acc", "test/loss", "test/acc"} <= set(rows[0])
    steps = [int(row["step"]) for row in rows]
    assert steps == [2, 4, 5, 6, 8, 10]  # every second step, and the last of each epoch
    assert [int(row["epoch"]) for row in rows] == [0, 0, 0, 1, 1, 1]
    assert [bool(row["val/acc"]) for row in rows] == [False, False, True, False, False, True]
    assert [bool(row["test/acc"]) for row in rows] == [False] * 5 + [True]
    assert all(float(row["train/loss"]) > 0 for row in rows)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_the_summary_is_what_happened(run, drawn):
    summary = json.loads((run.dir / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["name"] == "digits_resnet" and summary["model"] == "resnet20"
    assert (summary["epochs"], summary["steps"], summary["seed"], summary["batch_size"]) == (2, 10, 3, 64)
    assert summary["parameters"] == sum(p.numel() for p in dlzoo.load(run.dir).parameters())
    assert summary["precision"] == "32-true" and summary["devices"] == 1
    assert summary["classes"] == list("0123456789")
    last = _rows(run)[-1]
    for name in ("val/loss", "val/acc", "test/loss", "test/acc"):
        assert summary["metrics"][name] == pytest.approx(float(last[name]), rel=1e-6)
    assert 0 < summary["training_seconds"] < summary["total_seconds"]
    assert summary["samples_per_second"] == pytest.approx(10 * 64 / summary["training_seconds"], rel=0.1)
    assert run.metrics == summary["metrics"]
    history = run.history
    assert history["val/acc"][0] == [5, 10] and len(history["train/loss"][0]) == 6


def test_the_environment_is_recorded(run):
    environment = json.loads((run.dir / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert environment["packages"]["dlzoo"] and environment["python"] == sys.version.split()[0]
    assert environment["torch_threads"] == torch.get_num_threads() and datetime.fromisoformat(environment["time"])


def test_the_confusion_matrix_is_the_accuracy(run, drawn):
    matrix = drawn["matrix"]
    assert matrix.shape == (10, 10) and matrix.sum() == 360
    assert matrix.diagonal().sum().item() / 360 == pytest.approx(run.metrics["test/acc"], abs=1e-6)
    data = zoo.build(run.config["data"])
    assert torch.equal(matrix.sum(1), torch.bincount(data.splits.test_labels, minlength=10)), "rows are the true classes"
    assert "test" in drawn["title"] and drawn["classes"] == tuple("0123456789")


def test_a_checkpoint_holds_plain_values_and_everything_to_go_on(run):
    for which in ("best", "last"):
        content = torch.load(run.checkpoint(which), weights_only=True)
        options = {"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "mirror_test": False}
        options |= {"decay_norms_and_biases": True}
        assert content["hyper_parameters"] == {"num_classes": 10, "seed": 3} | options
        assert all(type(value) in (int, float, bool, str) for value in content["hyper_parameters"].values())
        assert content["optimizer_states"] and content["lr_schedulers"] and content["loops"] and content["callbacks"]
        assert content["epoch"] in (0, 1) and content["global_step"] in (5, 10)
    assert torch.load(run.checkpoint("last"), weights_only=True)["global_step"] == 10


def test_the_log_holds_what_the_screen_showed(run):
    text = (run.dir / "train.log").read_text()
    assert "epoch 2/2" in text and "269,434 parameters" in text and "Traceback" not in text


def test_an_epoch_without_validation_does_not_repeat_the_last_ones_numbers(tmp_path):
    run = _train(f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2")
    lines = [line for line in (run.dir / "train.log").read_text().splitlines() if "epoch " in line and "/3" in line]
    assert ["val/acc" in line for line in lines] == [False, True, False]


# --- what comes out of it


def _accuracy(net, data):
    images, labels = data.test_images(1000)
    with torch.inference_mode():
        return (net(images).argmax(1) == labels).double().mean().item()


def test_the_loaded_network_is_the_trained_one(run):
    data = zoo.build(run.config["data"])
    net = dlzoo.load(run.dir)
    assert not net.training
    assert _accuracy(net, data) == pytest.approx(run.metrics["test/acc"], abs=1e-6)
    # the weights are those of best.ckpt, bit for bit, whichever way they are asked for
    weights = {key.removeprefix("net."): value for key, value in _weights(run, "best").items() if key.startswith("net.")}
    assert _same(net.state_dict(), weights)
    assert _same(dlzoo.load(run.checkpoint("best")).state_dict(), weights)
    assert _same(run.load().state_dict(), weights)
    other = run.load("last").state_dict()
    last = {key.removeprefix("net."): value for key, value in _weights(run).items() if key.startswith("net.")}
    assert _same(other, last)


def test_evaluation_gives_what_training_measured(run):
    metrics = verbs.evaluate(run.dir)
    for name in ("test/loss", "test/acc"):
        assert metrics[name] == pytest.approx(run.metrics[name], abs=1e-6)
    assert json.loads((run.dir / "evaluation.json").read_text())["metrics"] == metrics
    (run.dir / "evaluation.json").unlink()
    # another batch size is the same measurement
    other = verbs.evaluate(run.dir, overrides=["data.eval_batch_size=77"])
    assert other["test/acc"] == pytest.approx(run.metrics["test/acc"], abs=1e-6)
    assert other["test/loss"] == pytest.approx(run.metrics["test/loss"], abs=1e-5)
    (run.dir / "evaluation.json").unlink()
    assert len(_rows(run)) == 6, "an evaluation is not a part of the training"


def test_the_loss_is_the_mean_over_samples(run):
    """Not over batches: 360 in batches of 77 leave a small one behind."""
    images, labels = zoo.build(run.config["data"]).test_images(1000)
    with torch.inference_mode():
        logits = dlzoo.load(run.dir)(images).double()
    loss = -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean().item()
    assert loss == pytest.approx(run.metrics["test/loss"], rel=1e-5)


def test_prediction_reads_a_picture_as_the_network_learned_it(run, tmp_path):
    from PIL import Image

    data = zoo.build(run.config["data"])
    images, _ = data.test_images(8)
    for index, image in enumerate(data.splits.test_images[:8]):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{index}.png")
    found = verbs.predict(run.dir, tmp_path, top=10)
    with torch.inference_mode():
        probabilities = dlzoo.load(run.dir)(images).softmax(1)
    for prediction, row in zip(found, probabilities, strict=True):
        assert prediction.labels[0] == str(row.argmax().item())
        assert prediction.probabilities == pytest.approx(sorted(row.tolist(), reverse=True), abs=2e-6)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-4)


def test_a_run_that_is_not_there_is_a_mistake(tmp_path):
    for verb in (dlzoo.load, verbs.evaluate):
        with pytest.raises(ConfigError, match="not the directory of a run"):
            verb(tmp_path / "nothing")


def test_a_run_without_checkpoints_is_told(run, tmp_path):
    (tmp_path / "config.yaml").write_text((run.dir / "config.yaml").read_text())
    with pytest.raises(CheckpointError, match="no checkpoint"):
        dlzoo.load(tmp_path)


# --- going on


def test_two_epochs_and_two_more_are_four(tmp_path):
    """Bit for bit, shuffled and augmented; at one rate, for a schedule planned for four epochs is another than for two."""
    constant = ("scheduler=constant", "optimizer.lr=0.02")
    whole = _train(*constant, "trainer.max_epochs=4", f"run_dir={tmp_path}/whole")
    half = _train(*constant, "trainer.max_epochs=2", f"run_dir={tmp_path}/half")
    assert not _same(_weights(whole), _weights(half))
    from dlzoo.run import go_on as resume

    resumed = resume(rundir.find(half.dir), ["trainer.max_epochs=4"])
    assert resumed.dir == half.dir
    assert _same(_weights(whole), _weights(resumed))
    one, other = (torch.load(run.checkpoint("last"), weights_only=True) for run in (whole, resumed))
    assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"]) == (3, 20)
    for key, state in one["optimizer_states"][0]["state"].items():
        assert torch.equal(state["momentum_buffer"], other["optimizer_states"][0]["state"][key]["momentum_buffer"])

    rows, plain = _rows(resumed), _rows(whole)
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)) == [int(row["step"]) for row in plain]
    for column in ("train/loss", "val/loss", "val/acc", "lr", "epoch"):
        assert [row[column] for row in rows] == [row[column] for row in plain], column
    assert resumed.metrics == whole.metrics
    assert (resumed.summary["epochs"], resumed.summary["steps"]) == (4, 20)
    assert resumed.config["trainer"]["max_epochs"] == 4
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds), "the clock goes on"

    with pytest.raises(ConfigError, match="has finished") as caught:
        resume(resumed)
    assert "trainer.max_epochs=8" in caught.value.fix
    with pytest.raises(ConfigError, match=r"no key 'trainer[.]max_epoch'"):
        resume(resumed, ["trainer.max_epoch=8"])
    with pytest.raises(ConfigError, match="expected"):
        resume(resumed, ["trainer.max_epochs=ten"])

    # a damaged checkpoint, and one of another network, are told as such
    path = resumed.checkpoint("last")
    good = path.read_bytes()
    path.unlink()  # best.ckpt may be the same file
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(CheckpointError, match="can not be read"):
        _train(f"ckpt_path={path}", "trainer.max_epochs=5", f"run_dir={tmp_path}/other", *constant)
    path.write_bytes(good)
    with pytest.raises(ConfigError, match="not be the same run"):
        resume(resumed, ["trainer.max_epochs=5", "model.shortcut=project"])
    assert _same(_weights(resumed), _weights(whole)), "what is there is not touched"


def test_a_run_may_start_from_anothers_checkpoint(run, tmp_path):
    other = _train(f"ckpt_path={run.checkpoint('last')}", "seed=3", "trainer.max_epochs=3", f"run_dir={tmp_path}/other")
    assert other.dir == tmp_path / "other" and other.summary["epochs"] == 3 and other.summary["steps"] == 15
    assert run.summary["epochs"] == 2


# --- the same, and not the same


def test_a_seed_is_a_run(run, tmp_path):
    same = _train(f"run_dir={tmp_path}/same", "seed=3")
    assert _same(_weights(same), _weights(run)) and same.metrics == run.metrics
    other = _train(f"run_dir={tmp_path}/other", "seed=4", "test=false")
    assert not any(
        torch.equal(value, _weights(run)[key]) for key, value in _weights(other).items() if key.endswith("conv1.weight")
    )
    assert "test/acc" not in other.metrics


def test_nothing_of_hydra_stays_behind(run):
    from hydra.core.global_hydra import GlobalHydra

    assert not GlobalHydra.instance().is_initialized()
    assert "DLZOO_RUN_DIR" not in os.environ
    import logging

    assert not [handler for handler in logging.getLogger("dlzoo").handlers if isinstance(handler, logging.FileHandler)]


def test_a_config_may_be_changed_before_it_is_run(tmp_path):
    cfg = dlzoo.compose(*SHORT, "trainer.max_epochs=1", "test=false")
    cfg.run_dir = str(tmp_path / "changed")
    cfg.optimizer.lr = 0.01
    before = str(cfg)
    assert dlzoo.train(cfg).config["optimizer"]["lr"] == 0.01
    assert str(cfg) == before, "the caller's config is the caller's"
    cfg.optimizer.lr = -1
    cfg.run_dir = str(tmp_path / "wrong")
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        dlzoo.train(cfg)
    assert not (tmp_path / "wrong").exists()


# --- directories


def test_a_directory_in_use_is_refused_and_left_alone(run):
    before = {path: path.stat().st_mtime_ns for path in run.dir.rglob("*")}
    with pytest.raises(RunInUseError) as caught:
        _train(f"run_dir={run.dir}")
    assert caught.value.exit_code == 8 and "resume" in caught.value.fix
    assert {path: path.stat().st_mtime_ns for path in run.dir.rglob("*")} == before


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["data=mnist", "data_dir={tmp}"], DataError),
        (["trainer.precision=16-mixed"], ConfigError),
        (["task.label_smoothing=2"], ConfigError),
        (["data.val_size=100000"], ConfigError),
        (["data.batch_size=0"], ConfigError),
        (["scheduler.peak=2"], ConfigError),
        (["trainer.limit_train_batches=2.5"], ConfigError),
        (["trainer.gradient_clip_algorithm=value", "trainer.strategy=nothing"], ConfigError),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], ConfigError),
        (["data.cutout=50"], None),
    ],
)
def test_what_cannot_start_leaves_its_name_free(tmp_path, overrides, error):
    """A user who mends the mistake types the same run_dir again."""
    overrides = [override.format(tmp=tmp_path / "nowhere") for override in overrides]
    place = tmp_path / "mine"
    if error is None:
        _train(*overrides, f"run_dir={place}", "trainer.max_epochs=1", "test=false")
        return
    with pytest.raises(error):
        _train(*overrides, f"run_dir={place}")
    assert not place.exists() or not list(place.iterdir())


def test_a_place_that_cannot_be_written_is_told_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        _train(f"run_dir={tmp_path}/file/run")
    assert caught.value.exit_code == 7 and "run_dir" in caught.value.fix


def test_many_starts_in_one_second_get_a_directory_each(tmp_path):
    barrier, made = threading.Barrier(32), []

    def start():
        barrier.wait()
        made.append(rundir.create({"runs_dir": str(tmp_path), "name": "same"}, None))

    threads = [threading.Thread(target=start) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 32 and all((path / "checkpoints").is_dir() for path in made)


def test_many_processes_get_a_directory_each(tmp_path):
    code = (
        "import multiprocessing as m, sys\nfrom dlzoo import rundir\n"
        "def start(barrier, queue, folder):\n    barrier.wait()\n"
        "    queue.put(str(rundir.create({'runs_dir': folder, 'name': 'same'}, None)))\n"
        "if __name__ == '__main__':\n"
        "    context = m.get_context('fork'); barrier = context.Barrier(32); queue = context.Queue()\n"
        "    all = [context.Process(target=start, args=(barrier, queue, sys.argv[1])) for _ in range(32)]\n"
        "    [p.start() for p in all]; print(len({queue.get(timeout=60) for _ in all})); [p.join() for p in all]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "32", done.stderr


def test_a_path_with_spaces_and_other_letters(tmp_path):
    place = tmp_path / "mein Lauf (ü=1), nr. 2"
    run = dlzoo.train(dlzoo.compose(*SHORT, "trainer.max_epochs=1", "trainer.limit_train_batches=2", f"run_dir='{place}'"))
    assert run.dir == place and {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} == set(FILES)
    dlzoo.load(run.dir)


# --- special cases


@pytest.mark.parametrize("without", ["data.val_size=0", "trainer.limit_val_batches=0"])
def test_without_validation_the_last_weights_are_the_best(tmp_path, without):
    run = _train(without, "trainer.max_epochs=1", f"run_dir={tmp_path}/run")
    assert run.summary["status"] == "finished" and "val/acc" not in run.metrics and "test/acc" in run.metrics
    assert run.checkpoint("best").name == "last.ckpt"
    assert _accuracy(dlzoo.load(run.dir), zoo.build(run.config["data"])) == pytest.approx(run.metrics["test/acc"], abs=1e-6)


@pytest.mark.parametrize("batches", [1, 5])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, batches):
    with pytest.raises(NumericalError) as caught:
        _train("optimizer.lr=1e20", "scheduler=constant", f"trainer.limit_train_batches={batches}", f"run_dir={tmp_path}/run")
    error, run = caught.value, rundir.find(tmp_path / "run")
    assert error.exit_code == 4 and "step" in error.where and "lr" in error.fix
    assert run.summary["status"] == "failed"
    assert "NumericalError" in (run.dir / "train.log").read_text()
    for path in (run.dir / "checkpoints").glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values()), path


def test_steps_limit_a_run_too(tmp_path):
    run = _train("trainer.max_epochs=-1", "trainer.max_steps=3", "test=false", f"run_dir={tmp_path}/run")
    assert run.summary["steps"] == 3 and run.summary["status"] == "finished"
    from dlzoo.run import go_on as resume

    assert resume(run, ["trainer.max_steps=6"]).summary["steps"] == 6


def test_gradient_accumulation_is_the_larger_batch(tmp_path):
    """Without batch norm it would be the same numbers; here it is the same number of steps."""
    run = _train("trainer.accumulate_grad_batches=5", "trainer.max_epochs=1", "test=false", f"run_dir={tmp_path}/run")
    assert run.summary["steps"] == 1
    rows = _rows(run)
    assert [int(row["step"]) for row in rows] == [1]


def test_no_secret_reaches_the_directory(tmp_path, monkeypatch):
    secret = "0123456789abcdef0123456789abcdef01234567"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, secret)
    run = _train("logger=[csv,tensorboard,wandb]", "trainer.max_epochs=1", f"run_dir={tmp_path}/run")
    files = [path for path in run.dir.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


# --- the task


class _Net(nn.Module):
    """Sees where a thing is: its mirror image gets other logits."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(x[..., :4, :4].flatten(1))


def _task(**options):
    from dlzoo.tasks.classification import Classification

    torch.manual_seed(0)
    return Classification(_Net(), torch.optim.SGD, lambda *_: None, num_classes=4, **options)


def _batch(count=12, side=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, side, side, generator=generator), torch.randint(4, (count,), generator=generator)


def _at(task, epoch, monkeypatch):
    monkeypatch.setattr(type(task), "current_epoch", property(lambda self: epoch))


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_knows_the_seed_the_epoch_and_the_batch_alone(options, monkeypatch):
    x, y = _batch(side=32)
    task = _task(seed=1, **options)

    def mixed(seed, epoch, batch_idx):
        other = _task(seed=seed, **options)
        _at(other, epoch, monkeypatch)
        return other._mix(x, y, batch_idx)

    torch.manual_seed(5)
    one = mixed(1, 2, 7)
    before = torch.random.get_rng_state()
    _at(task, 2, monkeypatch)
    two = task._mix(x, y, 7)
    assert torch.equal(before, torch.random.get_rng_state()), "the generator that dropout uses is given back"
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    # the batches of a window of accumulation are at the same step: each has a mix of its own
    others = [mixed(1, 2, batch)[0] for batch in range(8, 14)] + [mixed(seed, 2, 7)[0] for seed in range(2, 8)]
    others += [mixed(1, epoch, 7)[0] for epoch in range(3, 9)]
    assert sum(not torch.equal(one[0], other) for other in others) >= 15, "now and then a mix is almost nothing"
    assert one[1].shape == (12, 4) and torch.allclose(one[1].sum(1), torch.ones(12))
    # a label's share is its image's share
    loss = task.training_step((x, y), 0)
    assert loss.isfinite() and loss.ndim == 0


def test_both_mixers_get_their_turn(monkeypatch):
    x, y = _batch()
    task = _task(mixup=0.4, cutmix=1.0)
    chosen = set()
    for mixer in task.mixers:
        monkeypatch.setattr(mixer, "forward", lambda *_, mixer=mixer: (chosen.add(type(mixer).__name__), y)[1:] * 2)
    for batch_idx in range(20):
        task._mix(x, y, batch_idx)
    assert chosen == {"MixUp", "CutMix"}


def test_the_mirror_test_is_the_mean_of_both(monkeypatch):
    x, y = _batch()
    task = _task(mirror_test=True).eval()
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    with torch.no_grad():
        got = task.test_step((x, y), 0)["logits"].numpy()
        plain = task.validation_step((x, y), 0)["logits"].numpy()
        straight = task.net(x).numpy()
        mirrored = task.net(torch.from_numpy(np.ascontiguousarray(x.numpy()[..., ::-1]))).numpy()
    np.testing.assert_allclose(got, (straight + mirrored) / 2, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(plain, straight)
    assert np.abs(straight - mirrored).max() > 0.1
    accuracy = task.metrics["test_acc"].compute().item()
    assert accuracy == pytest.approx((got.argmax(1) == y.numpy()).mean())


def test_label_smoothing_is_the_papers_and_only_in_training():
    x, y = _batch()
    task = _task(label_smoothing=0.1)
    with torch.no_grad():
        log = task.net(x).double().log_softmax(1)
        target = torch.full((12, 4), 0.1 / 4, dtype=torch.float64)
        target[torch.arange(12), y] += 0.9
        assert task.training_step((x, y), 0).item() == pytest.approx(-(target * log).sum(1).mean().item(), rel=1e-5)
        task.log = lambda *_, **__: None
        assert task.validation_step((x, y), 0)["losses"].mean().item() == pytest.approx(
            -log[torch.arange(12), y].mean().item(), rel=1e-5
        )


@pytest.mark.parametrize("options", [{"label_smoothing": -0.1}, {"label_smoothing": 1.1}, {"mixup": -1}, {"cutmix": -0.5}])
def test_the_task_refuses(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        _task(**options)


@pytest.mark.parametrize("name", ["constant", "multistep", "cosine", "one_cycle"])
def test_a_schedule_does_not_know_the_length_of_a_run(name):
    """The same share of the training has the same rate, however many steps there are."""
    from dlzoo.optim import schedules

    def rates(steps):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule = getattr(schedules, name)(optimizer, total_steps=steps)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        optimizer.step()
        schedule.step()
        assert math.isfinite(optimizer.param_groups[0]["lr"])  # past the end
        return found

    short, long = rates(20), rates(2000)
    assert max(short + long) <= 0.5 + 1e-12 and min(short + long) >= 0
    assert short == pytest.approx(long[::100], abs=1e-9)


# --- two processes

TWO = """
import sys
import torch
from torch import nn
import dlzoo
from dlzoo import zoo

class Plain(nn.Module):  # no batch norm: its statistics would be those of half a batch
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
        )

    def forward(self, x):
        return self.layers(x)

build = zoo.build
plain = lambda node: isinstance(node, dict) and str(node.get("_target_", "")).startswith("dlzoo.models")
zoo.build = lambda node: Plain() if plain(node) else build(node)
folder, trainer = sys.argv[1:]
words = ["trainer=" + trainer, "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.limit_train_batches=6"]
words += ["data.eval_batch_size=78", "run_dir=" + folder]
dlzoo.train(dlzoo.compose(*words), words)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    """The same losses at the same global batch, and metrics over every sample once, for a network without batch norm."""
    (tmp_path / "two.py").write_text(TWO)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    runs = []
    for trainer in ("cpu", "ddp_cpu"):
        words = [sys.executable, str(tmp_path / "two.py"), str(tmp_path / trainer), trainer]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        runs.append(rundir.find(tmp_path / trainer))
    one, two = runs
    assert (one.summary["devices"], two.summary["devices"]) == (1, 2)
    rows, others = _rows(one), _rows(two)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    last = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert last == pytest.approx([float(row["val/loss"]) for row in others if row["val/loss"]], rel=1e-5)
    for name in ("test/acc", "val/acc"):
        assert two.metrics[name] == pytest.approx(one.metrics[name], abs=1e-6), name
    losses = [float(row["train/loss"]) for row in rows]
    assert losses == pytest.approx([float(row["train/loss"]) for row in others], rel=1e-5)
