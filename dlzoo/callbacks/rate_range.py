"""Watches a range test: the loss of each step, and the learning rate that the step was made with."""

import math
import sys
import time
from typing import Any

import lightning as L
from torch.optim import Optimizer

FIRST = 5  # steps whose mean loss is that of the untrained network
KEEP = 0.7  # of the running mean, at each step
EVERY = 10.0  # seconds between two lines on the screen


class RateRange(L.Callback):
    """Notes rate and loss of each optimizer step, and ends the training when the loss has run away.

    Accumulated batches are one step, whose loss is their mean.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._loss, self._batches = 0.0, 0
        self._said = time.monotonic()
        self._running = self._best = math.nan

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._loss += outputs["loss"].item()
        self._batches += 1
        if trainer.fit_loop._should_accumulate():
            return
        # Lightning has divided by the batches of a whole step; the last one of an epoch may have fewer
        self.losses.append(self._loss * trainer.accumulate_grad_batches / self._batches)
        self._loss, self._batches = 0.0, 0
        trainer.should_stop = self._ran_away()
        if time.monotonic() - self._said > EVERY and trainer.is_global_zero:
            self._said = time.monotonic()
            at = f"rate {self.rates[-1]:.2g}, loss {self.losses[-1]:.4g}"
            print(f"step {len(self.losses)} of {trainer.max_steps}: {at}", file=sys.stderr, flush=True)

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
