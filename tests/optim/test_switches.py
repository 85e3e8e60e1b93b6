"""The switches of an experiment's training, on digits: each on, alone and together, and resumed."""

import csv

import pytest
import torch

import dlzoo
from dlzoo import rundir, verbs
from dlzoo.config import compose
from dlzoo.run import go_on
from dlzoo.signals import Stopped

SHORT = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=6",
    "trainer.log_every_n_steps=2",
    "model=resnet20",
)


def _train(path, *overrides):
    words = [*SHORT, f"run_dir={path}", *overrides]
    return dlzoo.train(compose(*words), words)


def _content(run, which="last"):
    return torch.load(run.checkpoint(which), weights_only=True)


def _same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def _losses(run):
    with open(run.dir / "metrics.csv", newline="", encoding="utf-8") as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


ALL = (
    *("optimizer=sam", "callbacks=[ema,early_stopping]", "task.mixup=0.4", "task.decay_norms_and_biases=false"),
    *("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5", "callbacks.early_stopping.patience=5"),
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("everything") / "run", *ALL)


@pytest.mark.parametrize("fault", ["sigterm@step=4", "sigterm@val=2", "sigint@step=2"])
def test_with_everything_on_a_stopped_run_goes_on_exactly(everything, fault, tmp_path, monkeypatch):
    """SAM, EMA, early stopping, mixing, accumulation and clipping, stopped in an epoch and in a validation."""
    monkeypatch.setenv("DLZOO_FAULT", fault)
    with pytest.raises(Stopped):
        _train(tmp_path / "run", *ALL)
    monkeypatch.delenv("DLZOO_FAULT")
    resumed = go_on(rundir.find(tmp_path / "run"))
    one, other = _content(everything), _content(resumed)
    for key in ("state_dict", "current_model_state"):
        assert _same(one[key], other[key]), key
    assert not _same(one["state_dict"], one["current_model_state"])
    assert _losses(everything) == _losses(resumed)
    state = [value for name, value in one["callbacks"].items() if name.startswith("EarlyStopping")]
    assert state and state == [value for name, value in other["callbacks"].items() if name.startswith("EarlyStopping")]


def test_the_measured_weights_are_the_average(everything):
    content = _content(everything, "best")
    net = verbs.load(everything.dir)
    assert _same(dict(net.state_dict()), {name.removeprefix("net."): v for name, v in content["state_dict"].items()})
    assert verbs.evaluate(everything.dir, "best")["test/acc"] == pytest.approx(everything.metrics["test/acc"], abs=1e-6)


def test_early_stopping_ends_the_training_and_remembers(tmp_path):
    words = ("callbacks=early_stopping", "callbacks.early_stopping.min_delta=100", "callbacks.early_stopping.patience=2")
    run = _train(tmp_path / "run", *words, "trainer.max_epochs=9")
    assert run.summary["status"] == "finished" and run.summary["epochs"] == 3, (
        "the first value, and two that are not 100 better"
    )
    resumed = go_on(run, ["trainer.max_epochs=10"])
    assert resumed.summary["epochs"] == 4, "its count goes on: one more validation, and it stops again"


def test_half_the_batch_accumulated_twice_is_the_batch(tmp_path):
    """A network without norms over the batch learns the same; each sample is augmented as before."""
    words = ("model=mlp", "trainer.limit_val_batches=0", "test=false")
    whole = _train(tmp_path / "whole", *words, "data.batch_size=64")
    halves = ("data.batch_size=32", "trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=12")
    half = _train(tmp_path / "half", *words, *halves)
    assert whole.summary["steps"] == half.summary["steps"] == 12
    for name, weight in _content(whole)["state_dict"].items():
        torch.testing.assert_close(weight, _content(half)["state_dict"][name], rtol=1e-4, atol=1e-6)
    losses = [[float(loss) for _, loss in _losses(run)] for run in (whole, half)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_clipped_gradient_is_the_unscaled_one():
    """fp16 with a scaler: clipped before unscaling, a gradient of 65536 times the size would all but vanish."""
    import lightning as L
    from lightning.pytorch.plugins.precision import MixedPrecision

    from dlzoo.run import build

    config = dict(
        dlzoo.config.check(compose(*SHORT, "model=mlp", "optimizer.fused=false", "optimizer.momentum=0", "test=false"))
    )
    config |= {"callbacks": {}, "logger": {}}
    task, data, _ = build(config)
    seen = []

    class Steps(L.Callback):
        def on_before_optimizer_step(self, trainer, task, optimizer):
            self.before = [p.detach().clone() for p in task.net.parameters()]
            seen.append(_norm([p.grad for p in task.net.parameters()]))

        def on_train_batch_end(self, trainer, task, *_):
            moved = [(a - p.detach()) / rate for a, p in zip(self.before, task.net.parameters(), strict=True)]
            seen.append(_norm(moved))

        def on_train_batch_start(self, trainer, task, *_):
            nonlocal rate
            rate = trainer.optimizers[0].param_groups[0]["lr"]

    rate = 0.0
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=3,
        limit_val_batches=0,
        gradient_clip_val=0.01,
        callbacks=[Steps()],
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    task.optimizer.keywords["weight_decay"] = 0.0
    trainer.fit(task, datamodule=data)
    assert len(seen) == 6 and all(0.05 < norm < 50 for norm in seen[::2]), "unscaled when the hook sees it"
    assert seen[1::2] == pytest.approx([0.01] * 3, rel=1e-2)


def test_a_fused_optimizer_in_bf16_takes_clipped_gradients(tmp_path):
    """Lightning refuses the pair, for the sake of fp16: here the kernel makes no difference, and the bound does."""
    words = ("model=mlp", "optimizer=adamw", "trainer.precision=bf16-mixed", "trainer.max_epochs=1", "test=false")
    runs = {}
    for name, fused, bound in (("fused", True, 0.01), ("plain", False, 0.01), ("free", True, "null")):
        more = (f"optimizer.fused={fused}", f"trainer.gradient_clip_val={bound}", "optimizer.eps=1e-2")
        runs[name] = _content(_train(tmp_path / name, *words, *more))["state_dict"]
    for name, weight in runs["fused"].items():
        torch.testing.assert_close(weight, runs["plain"][name], rtol=1e-4, atol=1e-6)
    # Adam's step is as long for gradients of any size, but for its eps
    assert any(not torch.allclose(weight, runs["free"][name], rtol=1e-2) for name, weight in runs["fused"].items())


def _norm(tensors):
    return torch.stack([tensor.norm() for tensor in tensors]).norm().item()


def test_channels_last_is_the_same_network_in_another_order(tmp_path):
    words = ("optimizer.lr=1e-3", "trainer.max_epochs=1", "test=false")  # at a high rate rounding alone soon leads elsewhere
    plain, run = _train(tmp_path / "plain", *words), _train(tmp_path / "run", *words, "channels_last=true")
    assert run.metrics["val/loss"] == pytest.approx(plain.metrics["val/loss"], rel=1e-3)
    assert _content(run)["state_dict"].keys() == _content(plain)["state_dict"].keys()
    weight = _content(run)["state_dict"]["net.stages.0.0.conv1.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.slow
def test_a_compiled_network_keeps_its_names_and_its_numbers(tmp_path):
    """With the callbacks that copy the network and that call it twice, and resumed by one that is not compiled."""
    words = ("model=mlp", "callbacks=[ema,sam]")
    straight = _train(tmp_path / "straight", *words)
    compiled = _train(tmp_path / "compiled", *words, "compile=true")
    one, other = _content(straight), _content(compiled)
    for key in ("state_dict", "current_model_state"):
        assert one[key].keys() == other[key].keys() and not any("_orig_mod" in name for name in other[key])
        for name, value in one[key].items():
            torch.testing.assert_close(value, other[key][name], rtol=1e-3, atol=1e-5)
    assert go_on(compiled, ["compile=false", "trainer.max_epochs=3"]).summary["epochs"] == 3
