"""The run report: the numbers and pictures that a run leaves behind, refreshed at every validation."""

import heapq
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from dlzoo.errors import NumericalError
from dlzoo.plots import figure
from dlzoo.plots.confusion import confusion
from dlzoo.plots.curves import curves
from dlzoo.plots.history import read_metrics
from dlzoo.plots.images import image_grid, save_image
from dlzoo.signals import Stopped


class RunReport(L.Callback):
    """Logs the training loss, the rate and the speed every few steps; draws samples, curves, confusion and mistakes.

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
        self._clear()

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
                self._draw_samples(trainer, batch)
                self._draw_example(trainer)
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
        self._clear_evaluation()

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
        self._clear_evaluation()

    def on_test_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        self._watch(outputs, batch)

    def on_test_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._log_evaluation(trainer)
        self._draw(trainer, "test")

    # --- numbers

    def _clear(self) -> None:
        self._loss: Tensor | None = None
        self._batches = 0
        self._clear_evaluation()

    def _clear_evaluation(self) -> None:
        self._matrix: Tensor | None = None
        self._worst: list[tuple[float, int, Tensor, int, Tensor]] = []  # a heap: the least bad on top

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

    def _watch(self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> None:
        """Adds a batch to the confusion matrix and keeps its worst mistakes."""
        (images, labels), logits = batch, outputs["logits"]
        classes = logits.shape[1]
        predicted = logits.argmax(1)
        counts = torch.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
        self._matrix = counts if self._matrix is None else self._matrix + counts
        if images.ndim != 4:
            return  # not pictures: nothing to show
        losses = outputs["losses"].masked_fill(predicted == labels, -1.0)
        for index in losses.topk(min(self.mistakes, len(losses))).indices.tolist():
            loss = losses[index].item()
            full = len(self._worst) == self.mistakes
            if loss < 0 or (full and loss <= self._worst[0][0]):
                break
            # the count breaks ties, so that tensors are never compared
            entry = (loss, len(self._worst) + id(images), images[index].cpu(), labels[index].item(), logits[index].cpu())
            heapq.heapreplace(self._worst, entry) if full else heapq.heappush(self._worst, entry)

    def _draw(self, trainer: L.Trainer, split: str) -> None:
        matrix = self._matrix
        if matrix is not None:
            matrix = trainer.strategy.reduce(matrix, reduce_op="sum")  # every rank takes part
        if not trainer.is_global_zero:
            return
        self._draw_curves(trainer)
        if matrix is None:
            return
        classes = trainer.datamodule.classes
        figure.save(confusion(matrix.cpu(), classes, f"{self.title}, {split}"), self.dir / "confusion.png")
        worst = sorted(self._worst, key=lambda entry: -entry[0])
        if worst:
            images = trainer.datamodule.preprocess.denormalize(torch.stack([entry[2] for entry in worst]))
            captions = [_caption(entry[3], entry[4], classes) for entry in worst]
            figure.save(image_grid(images, captions, f"{self.title}, {split}: the worst mistakes"), self.dir / "mistakes.png")

    def _draw_example(self, trainer: L.Trainer) -> None:
        """One test picture as a file, so that the printed command for a prediction has something to work on."""
        images, _ = trainer.datamodule.test_images(1)
        if images.ndim == 4:
            save_image(trainer.datamodule.preprocess.denormalize(images)[0], self.dir / "example.png")

    def _draw_curves(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        history = read_metrics(self.dir / "metrics.csv")
        history.pop("samples_per_second", None)  # for the table, not for the eye
        figure.save(curves(history, self.title), self.dir / "curves.png")

    def _draw_samples(self, trainer: L.Trainer, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        if images.ndim != 4:
            return
        shown = trainer.datamodule.preprocess.denormalize(images[:40].detach().float().cpu())
        captions = [trainer.datamodule.classes[label] for label in labels[:40].tolist()]
        figure.save(
            image_grid(shown, captions, f"{self.title}: the first batch as the network sees it"), self.dir / "samples.png"
        )


def _require_finite(trainer: L.Trainer, name: str, value: float) -> None:
    """Stops the run before weights that compute nothing are written over good ones."""
    if not math.isfinite(value):
        raise NumericalError(
            f"{name} is {value}",
            where=f"step {trainer.global_step}, epoch {trainer.current_epoch}",
            safe="the checkpoints written before it",
            fix="a smaller optimizer.lr, trainer.gradient_clip_val=1, or trainer.precision=32",
        )


def _caption(label: int, logits: Tensor, classes: tuple[str, ...]) -> str:
    probabilities = logits.softmax(0)
    top = int(probabilities.argmax())
    return f"{classes[top]} {probabilities[top]:.2f}, is {classes[label]}"
