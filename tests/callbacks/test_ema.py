"""The moving average: its formula, who sees it, and that a checkpoint holds both sets of weights whenever it is saved."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from dlzoo.callbacks.ema import EMA
from dlzoo.errors import ConfigError


class Task(L.LightningModule):
    """A little network; notes its weights when it validates and tests."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        self.seen = []

    def training_step(self, batch):
        return F.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch):
        self.seen.append(weights(self))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Notes(L.Callback):
    """The weights after each step, and the checkpoints that one would get at all kinds of times."""

    def __init__(self):
        self.steps, self.checkpoints = [], {}

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if not trainer.fit_loop._should_accumulate():
            self.steps.append(weights(task))
        self._note(trainer, f"batch {batch_idx}")

    def on_validation_batch_end(self, trainer, task, *_):
        self._note(trainer, "in validation")

    def on_validation_end(self, trainer, task):
        self._note(trainer, "validated")

    def on_train_end(self, trainer, task):
        self._note(trainer, "train end")

    def on_exception(self, trainer, task, exception):
        self._note(trainer, "exception")

    def _note(self, trainer, when):
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        copied = {key: {k: v.clone() for k, v in state[key].items()} for key in ("state_dict", "current_model_state")}
        self.checkpoints[when] = copied | {
            "updates": int(state["averaging_state"]["n_averaged"]),
            "callbacks": state["callbacks"],
        }


def weights(task):
    return {name: value.detach().clone() for name, value in task.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            value.double(), other[name].double(), rtol=1e-5, atol=1e-6, msg=lambda t, n=name: f"{n}: {t}"
        )


def by_formula(steps, decay, warmup):
    """e_1 = w_1; e_n+1 = d_n e_n + (1 - d_n) w_n+1, in float64; whole numbers are those of the last step."""
    average = {name: value.double() for name, value in steps[0].items()}
    for n, step in enumerate(steps[1:], 1):
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        average = {name: d * value + (1 - d) * step[name].double() for name, value in average.items()}
    last = {name: value for name, value in steps[-1].items() if not value.is_floating_point()}
    return average | last


def loader(count=8):
    generator = torch.Generator().manual_seed(1)
    batches = [(torch.randn(6, 4, generator=generator), torch.randn(6, 2, generator=generator)) for _ in range(count)]
    return torch.utils.data.DataLoader(batches, batch_size=None)


def fit(ema, *others, **options):
    task, notes = Task(), Notes()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 2} | options
    trainer = L.Trainer(accelerator="cpu", devices=1, callbacks=[ema, *others, notes], **quiet, **options)
    return task, notes, trainer


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("decay, warmup", [(0.9, False), (0.9, True), (0.2, True), (0.0, False)])
def test_the_average_is_the_formula_and_what_is_validated(decay, warmup, accumulate):
    task, notes, trainer = fit(EMA(decay, warmup), max_epochs=2, accumulate_grad_batches=accumulate)
    trainer.fit(task, loader(), loader(2))
    half = len(notes.steps) // 2
    assert len(notes.steps) == 16 // accumulate
    same(task.seen[0], by_formula(notes.steps[:half], decay, warmup))
    same(task.seen[-1], by_formula(notes.steps, decay, warmup))
    same(weights(task), by_formula(notes.steps, decay, warmup))
    assert (task.seen[-1]["net.0.weight"] - notes.steps[-1]["net.0.weight"]).abs().max() > 1e-4 or decay == 0
    assert notes.steps[-1]["net.1.num_batches_tracked"] == 16


def test_a_checkpoint_is_the_same_whenever_it_is_saved():
    """In the middle of an epoch, of a validation with the weights exchanged, after it, and at the end of the training."""
    task, notes, trainer = fit(EMA(0.9))
    trainer.fit(task, loader(), loader(2))
    middle, last = by_formula(notes.steps[:4], 0.9, True), by_formula(notes.steps, 0.9, True)
    same(notes.checkpoints["batch 3"]["state_dict"], middle)
    same(notes.checkpoints["batch 3"]["current_model_state"], notes.steps[3])
    for when in ("in validation", "validated", "train end"):
        same(notes.checkpoints[when]["state_dict"], last)
        same(notes.checkpoints[when]["current_model_state"], notes.steps[-1])
        assert notes.checkpoints[when]["updates"] == 8


def test_a_stop_in_a_validation_puts_the_trained_weights_back():
    class Stop(L.Callback):
        def on_validation_batch_start(self, trainer, task, *_):
            raise KeyError("stop")

    ema = EMA(0.9)
    task, notes, trainer = fit(ema, Stop())
    with pytest.raises(KeyError):
        trainer.fit(task, loader(), loader(2))
    same(weights(task), notes.steps[-1])
    same(notes.checkpoints["exception"]["state_dict"], by_formula(notes.steps, 0.9, True))
    same(notes.checkpoints["exception"]["current_model_state"], notes.steps[-1])
    before = weights(task)
    ema.restore(task)
    same(weights(task), before)


def test_a_run_goes_on_from_a_checkpoint_in_the_middle(tmp_path):
    """The second half from a file equals the run that never stopped."""
    whole, notes, trainer = fit(EMA(0.9), max_epochs=2)
    trainer.fit(whole, loader(), loader(2))
    half, _, trainer = fit(EMA(0.9))
    trainer.fit(half, loader(), loader(2))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    content = torch.load(tmp_path / "half.ckpt", weights_only=True)
    same(content["state_dict"], by_formula(notes.steps[:8], 0.9, True))
    same(content["current_model_state"], notes.steps[7])
    task, later, trainer = fit(EMA(0.9), max_epochs=2)
    trainer.fit(task, loader(), loader(2), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert len(later.steps) == 8
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(task)[name]), name
        assert torch.equal(notes.steps[-1][name], later.steps[-1][name]), name


def test_the_test_of_a_checkpoint_sees_the_average(tmp_path):
    task, notes, trainer = fit(EMA(0.9))
    trainer.fit(task, loader(), loader(2))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    trainer.test(task, loader(1), ckpt_path=tmp_path / "end.ckpt", weights_only=True, verbose=False)
    same(task.seen[-1], by_formula(notes.steps, 0.9, True))
    trainer.test(task, loader(1), verbose=False)
    same(task.seen[-1], by_formula(notes.steps, 0.9, True))


def test_a_checkpoint_without_an_average_begins_one(tmp_path):
    task, _, trainer = fit(EMA(0.9))
    trainer.callbacks = []
    trainer.fit(task, loader(), loader(2))
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    other, notes, trainer = fit(EMA(0.9), max_epochs=2)
    trainer.fit(other, loader(), loader(2), ckpt_path=tmp_path / "plain.ckpt", weights_only=True)
    assert len(notes.steps) == 8
    same(weights(other), by_formula(notes.steps, 0.9, True))


@pytest.mark.parametrize("strategy", [DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy])
def test_sharded_weights_are_refused(strategy):
    with pytest.raises(ConfigError, match="shards"):
        EMA().setup(SimpleNamespace(strategy=object.__new__(strategy)), None, "fit")


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(decay)
