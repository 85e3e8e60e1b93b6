"""Hooks that do nothing are passed over, those that do something are not; and a profiler that was asked for still profiles."""

import lightning as L
import pytest
import torch
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn

import dlzoo
from dlzoo.callbacks import lean


class Counts(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, *_):
        self.seen.append("batch")

    def on_train_epoch_end(self, *_):
        self.seen.append("epoch")


class CountsBackward(Counts):
    def on_after_backward(self, *_):
        self.seen.append("backward")


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _fit(folder, callbacks, profiler):
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        profiler=profiler,
    )
    trainer.fit(Regression(), torch.utils.data.DataLoader(torch.randn(6, 2), 2))
    return trainer


def test_only_empty_hooks_are_left_out(tmp_path):
    callbacks = [Counts(), CountsBackward(), L.Callback()]
    lean.leave_out_empty_hooks(callbacks)
    assert callbacks[0].on_after_backward is None and callbacks[2].on_train_batch_end is None
    assert callable(callbacks[1].on_after_backward) and callable(callbacks[0].on_train_batch_end)
    assert callable(L.Callback().on_after_backward)  # the class is as it was
    _fit(tmp_path, callbacks, lean.NoProfiler())
    assert callbacks[0].seen == ["batch", "batch", "batch", "epoch"]
    assert callbacks[1].seen == ["backward", "batch"] * 3 + ["epoch"]


def test_no_profiler_makes_no_context_of_its_own_each_time():
    ours = lean.NoProfiler()
    assert isinstance(ours, PassThroughProfiler)
    assert ours.profile("one") is ours.profile("two")
    with ours.profile("one"), ours.profile("one"):  # it nests
        pass


@pytest.mark.parametrize(("name", "expected"), [("null", "NoProfiler"), ("simple", "SimpleProfiler")])
def test_a_run_takes_the_profiler_that_its_config_names(tmp_path, name, expected):
    from dlzoo import config, run

    cfg = dlzoo.compose("trainer=cpu", f"run_dir={tmp_path}", f"trainer.profiler={name}")
    assert type(run.build(config.check(cfg))[2].profiler).__name__ == expected
