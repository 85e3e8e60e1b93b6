"""The faults of DLZOO_FAULT that happen at a step or a batch; a run has this callback only where the variable is set."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from dlzoo import faults


class Faulty(L.Callback):
    """Lets the named faults happen at their step, or in their batch of a validation or a test."""

    def __init__(self) -> None:
        self.batches = {"val": 0, "test": 0}
        self._nan = False

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, batch_idx: int) -> None:
        fault = faults.due("step", trainer.global_step)
        if fault is not None and fault.what == "nan":
            self._nan = True
        elif fault is not None:
            faults.strike(fault)

    def on_before_backward(self, trainer: L.Trainer, task: L.LightningModule, loss: Tensor) -> None:
        if self._nan:
            self._nan = False
            with torch.no_grad():
                loss.fill_(float("nan"))

    def on_validation_batch_start(self, *_: Any) -> None:
        self._evaluated("val")

    def on_test_batch_start(self, *_: Any) -> None:
        self._evaluated("test")

    def _evaluated(self, stage: str) -> None:
        self.batches[stage] += 1
        fault = faults.due(stage, self.batches[stage])
        if fault is not None:
            faults.strike(fault)
