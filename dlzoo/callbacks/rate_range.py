"""Watches a range test: the loss of each step, and the learning rate that the step was made with."""

import math
from typing import Any

import lightning as L
from torch.optim import Optimizer

FIRST = 5  # steps whose mean loss is that of the untrained network
KEEP = 0.7  # of the running mean, at each step


class RateRange(L.Callback):
    """Notes rate and loss of each optimizer step, and ends the training when the loss has run away.

    Accumulated batches are one step, whose loss is their mean.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._loss = 0.0
        self._running = self._best = math.nan

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._loss += outputs["loss"].item()  # Lightning has divided it by the number of batches that make a step
        if trainer.fit_loop._should_accumulate():
            return
        self.losses.append(self._loss)
        self._loss = 0.0
        trainer.should_stop = self._ran_away()

    def _ran_away(self) -> bool:
        loss = self.losses[-1]
        if not math.isfinite(loss):
            return True
        self._running = loss if math.isnan(self._running) else KEEP * self._running + (1 - KEEP) * loss
        self._best = self._running if math.isnan(self._best) else min(self._best, self._running)
        first = self.losses[:FIRST]
        start = sum(first) / len(first)
        # measured by how far the loss has fallen, and not by its size: a loss may well be negative
        return len(self.losses) > FIRST and self._running > start + 3 * max(start - self._best, 0.1 * abs(start))
