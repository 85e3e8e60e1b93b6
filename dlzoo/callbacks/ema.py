"""An exponential moving average of the weights, which is what validation, test and the best checkpoint use."""

import logging
from copy import deepcopy
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dlzoo.errors import ConfigError

log = logging.getLogger("dlzoo")


class EMA(WeightAveraging):
    """Averages weights and running statistics after each step: average <- d average + (1 - d) weights, from the first step on.

    In a checkpoint the average is the `state_dict`, which is what everybody reads; the weights that training goes on from lie
    beside it. During validation and after the training the task holds the average and this callback the weights; a checkpoint
    is the same whenever it is saved.

    Source: Polyak, Juditsky 1992, Acceleration of stochastic approximation by averaging. Differs from it: exponential.

    Args:
        decay: d, what the average keeps at each step.
        warmup: d is at most (1 + n) / (10 + n) after n updates, so that a short run does not average its beginning.

    Raises:
        ValueError: decay is not from 0 to below 1.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        super().__init__(multi_avg_fn=self._average)
        self.decay, self.warmup = decay, warmup
        self.updates = 0  # averages made so far; the first is a copy
        self._swapped = False  # whether the task holds the average

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise ConfigError(
                "an average of the weights needs all of them on each device, and this strategy shards them",
                where=f"callbacks.ema, trainer.strategy={type(trainer.strategy).__name__}",
                fix="trainer=ddp, or leave callbacks=ema out",
            )
        self._swapped = False
        self._average_model = AveragedModel(task, use_buffers=True, **self._kwargs)

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._average_model.module.to(task.device)  # it was copied before the task went to its device

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *others: Any) -> None:
        before = self._latest_update_step
        super().on_train_batch_end(trainer, task, *others)
        self.updates += self._latest_update_step != before

    def on_validation_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap(task, to_average=True)

    def on_validation_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap(task, to_average=False)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._swap(task, to_average=True)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        self.restore(task)

    def restore(self, task: L.LightningModule) -> None:
        """Puts the trained weights back into the task, where a validation was left in between."""
        self._swap(task, to_average=False)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates = state["updates"]

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None:
            return
        kept = self._average_model.state_dict()
        mine = {name.removeprefix("module."): value for name, value in kept.items() if name.startswith("module.")}
        its = checkpoint["state_dict"]
        checkpoint["state_dict"], checkpoint["current_model_state"] = (its, mine) if self._swapped else (mine, its)
        checkpoint["averaging_state"] = {name: value for name, value in kept.items() if not name.startswith("module.")}

    def on_load_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:  # the test wants the average, and has it
            return
        self._average_model.module.load_state_dict(deepcopy(checkpoint["state_dict"]))
        if "current_model_state" not in checkpoint:
            log.info("the checkpoint holds no average: it begins anew")
            return
        self._average_model.n_averaged.copy_(checkpoint["averaging_state"]["n_averaged"])
        task.load_state_dict(checkpoint["current_model_state"])

    def _average(self, averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - decay)
        else:  # a norm's count of batches
            torch._foreach_copy_(averages, weights)

    def _swap(self, task: L.LightningModule, to_average: bool) -> None:
        if self._average_model is not None and self._swapped != to_average:
            self._swap_models(task)
            self._swapped = to_average
