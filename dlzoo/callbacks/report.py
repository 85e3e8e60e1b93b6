"""The run report: the numbers and pictures that a run leaves behind, refreshed at every validation."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from dlzoo.callbacks.pictures.forecast import ForecastPictures
from dlzoo.callbacks.pictures.labels import LabelPictures
from dlzoo.callbacks.pictures.masks import MaskPictures
from dlzoo.callbacks.pictures.sentences import TranslationSamples
from dlzoo.callbacks.pictures.text import TextSamples
from dlzoo.errors import NumericalError
from dlzoo.plots import figure
from dlzoo.plots.curves import curves
from dlzoo.plots.history import read_metrics
from dlzoo.signals import Stopped

# what a task says of its answers -> what draws them
PICTURES = {"labels": LabelPictures, "masks": MaskPictures, "text": TextSamples, "translation": TranslationSamples}
PICTURES |= {"forecast": ForecastPictures}


class RunReport(L.Callback):
    """Logs the training loss, the rate and the speed every few steps; draws the curves and the pictures of the task.

    The loss is added up on its device and read only when it is logged, so that no step waits for a number.

    Args:
        run_dir: where the pictures go.
        title: over the pictures.
        mistakes: how many of the worst mistakes to show.
    """

    def __init__(self, run_dir: str, title: str, mistakes: int = 32) -> None:
        self.dir, self.title, self.mistakes = Path(run_dir), title, mistakes
        self.seconds = 0.0  # of training, without validation
        self.samples = 0  # seen in training, over all devices
        self._logged = 0  # the step of the newest row
        self._since: float | None = None
        self._loss: Tensor | None = None
        self._batches = 0
        self._pictures: LabelPictures | MaskPictures | TextSamples | TranslationSamples | ForecastPictures | None = None

    @property
    def samples_per_second(self) -> float:
        """Mean speed of the training so far."""
        seconds = self._elapsed()
        return self.samples / seconds if seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        # the loss since the last row of the table belongs to the next one, in whichever process that is written
        return {
            "seconds": self._elapsed(),
            "samples": self.samples,
            "loss": None if self._loss is None else self._loss.detach().cpu(),
            "batches": self._batches,
            "logged": self._logged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.samples, self._logged = state["seconds"], state["samples"], state["logged"]
        self._loss, self._batches = state["loss"], state["batches"]

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.world_size > 1 and self._loss is not None:  # one rank writes the file, and each has a loss of its own
            state = checkpoint["callbacks"][self.state_key]
            state["loss"] = trainer.strategy.reduce(self._loss.detach().clone(), reduce_op="mean").cpu()

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        kind = PICTURES.get(getattr(task, "answers", ""))
        self._pictures = kind(self.dir, self.title, trainer.datamodule, self.mistakes) if kind else None

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._first = True
        if self._loss is not None:
            self._loss = self._loss.to(trainer.strategy.root_device)
        self._start_clock()

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._start_clock()

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if self._first:
            self._first = False
            if trainer.is_global_zero:
                self._stop_clock()  # drawing is not training
                self._draw_first(batch)
                self._start_clock()

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs["loss"]
        self._loss = loss if self._loss is None else self._loss + loss
        self._batches += 1
        self.samples += len(batch[-1]) * trainer.world_size
        step = trainer.global_step  # stays as it is while gradients are accumulated
        if (step % trainer.log_every_n_steps == 0 and step != self._logged) or trainer.is_last_batch:
            self._logged = step
            self._log_training(trainer)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._stop_clock()
        self._clear_pictures()

    def on_validation_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        self._watch(outputs, batch)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log_evaluation(trainer)
            self._draw(trainer, "validation")

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._stop_clock()
        if trainer.is_global_zero:
            self._draw_curves(trainer)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        self._stop_clock()
        if isinstance(exception, Stopped) and trainer.is_global_zero and (self.dir / "metrics.csv").is_file():
            self._draw_curves(trainer)

    def on_test_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._clear_pictures()

    def on_test_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        self._watch(outputs, batch)

    def on_test_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._log_evaluation(trainer)
        self._draw(trainer, "test")

    # --- numbers

    def _start_clock(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def _stop_clock(self) -> None:
        self.seconds, self._since = self._elapsed(), None

    def _elapsed(self) -> float:
        return self.seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)

    def _log_training(self, trainer: L.Trainer) -> None:
        # over all ranks: one rank's share of the batch is not the batch, and all have to stop where one is not finite
        share = trainer.accumulate_grad_batches / self._batches  # Lightning hands over a loss that is divided already
        loss = trainer.strategy.reduce(self._loss.detach() * share, reduce_op="mean").item()
        self._loss, self._batches = None, 0
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._log(trainer, {"train/loss": loss, "lr": rate, "samples_per_second": self.samples_per_second})

    def _log_evaluation(self, trainer: L.Trainer) -> None:
        stage = "test/" if trainer.testing else "val/"
        numbers = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith(stage)}
        _require_finite(trainer, f"{stage}loss", numbers.get(f"{stage}loss", 0.0))  # the last step may have spoilt the weights
        self._log(trainer, numbers)

    def _log(self, trainer: L.Trainer, numbers: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({**numbers, "epoch": trainer.current_epoch}, step=trainer.global_step)

    # --- pictures

    def _clear_pictures(self) -> None:
        if self._pictures:
            self._pictures.clear()

    def _watch(self, outputs: dict[str, Tensor], batch: Any) -> None:
        if self._pictures:
            self._pictures.watch(outputs, batch)

    def _draw_first(self, batch: Any) -> None:
        if self._pictures:
            self._pictures.first(batch)

    def _draw(self, trainer: L.Trainer, split: str) -> None:
        if self._pictures:
            self._pictures.gather(trainer.strategy)  # every rank takes part
        if not trainer.is_global_zero:
            return
        self._draw_curves(trainer)
        if self._pictures:
            self._pictures.draw(split)

    def _draw_curves(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        history = read_metrics(self.dir / "metrics.csv")
        history.pop("samples_per_second", None)  # for the table, not for the eye
        figure.save(curves(history, self.title), self.dir / "curves.png")


def _require_finite(trainer: L.Trainer, name: str, value: float) -> None:
    """Stops the run before weights that compute nothing are written over good ones."""
    if not math.isfinite(value):
        raise NumericalError(
            f"{name} is {value}",
            where=f"step {trainer.global_step}, epoch {trainer.current_epoch}",
            safe="the checkpoints written before it",
            fix="a smaller optimizer.lr, trainer.gradient_clip_val=1, or trainer.precision=32",
        )
