"""Segmentation: one label for each pixel."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from dlzoo.optim.groups import parameter_groups

__all__ = ["Segmentation"]


class Segmentation(L.LightningModule):
    """Trains any network that maps an image to logits of each pixel.

    Args:
        net: (B, C, H, W) -> (B, num_classes, H, W), logits.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the schedule from the optimizer and the number of steps; it is stepped every batch.
        num_classes: number of labels.
        ignore_index: the label of pixels that have none; they count neither in the loss nor in a metric.
        decay_norms_and_biases: False keeps the optimizer's weight decay to the weights: see `optim.groups`.

    Batch:
        (x, y) with y of shape (B, H, W), integers below num_classes, or ignore_index.

    Logs:
        {val,test}/loss, the mean over labelled pixels; {val,test}/miou, the mean over the classes of intersection / union,
        counted over all images together, without classes that are neither there nor predicted; {val,test}/acc, the share of
        labelled pixels that are right. The training loss is the step's result: the run report logs its mean.

    Raises:
        ValueError: ignore_index is one of the labels.
    """

    answers = "masks"  # how the run report draws what the network says, and how `predict` tells it

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        *,
        num_classes: int,
        ignore_index: int = 255,
        decay_norms_and_biases: bool = True,
    ) -> None:
        super().__init__()
        if 0 <= ignore_index < num_classes:
            raise ValueError(f"ignore_index must not be one of the {num_classes} labels, got {ignore_index}")
        self.save_hyperparameters(ignore=["net", "optimizer", "scheduler"])  # plain numbers: a checkpoint holds no code
        self.net = net
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.ignore_index = ignore_index
        self.decay_norms_and_biases = decay_norms_and_biases
        # their own checks look through every pixel, twice
        options = {"num_classes": num_classes, "ignore_index": ignore_index, "validate_args": False}
        self.metrics = nn.ModuleDict()
        for stage in ("val", "test"):
            self.metrics[f"{stage}_miou"] = MulticlassJaccardIndex(**options)
            self.metrics[f"{stage}_acc"] = MulticlassAccuracy(**options, average="micro")
            self.metrics[f"{stage}_loss"] = MeanMetric(nan_strategy="disable")  # a NaN has to be seen

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook here some forty times a step; torch would search each value for parameters
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def logged(self) -> list[str]:
        """The names of what validation and test log: what a run can be judged by."""
        return [name.replace("_", "/", 1) for name in self.metrics]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        losses, labelled = self._losses(self.net(batch[0]), batch[1])
        return losses.sum() / labelled.sum().clamp(min=1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test")

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer(parameter_groups(self.net, self.decay_norms_and_biases))
        scheduler = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _losses(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each pixel, 0 where there is no label, and whether there is one: (B, H, W), (B, H, W)."""
        return F.cross_entropy(logits.float(), y, ignore_index=self.ignore_index, reduction="none"), y != self.ignore_index

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> dict[str, Tensor]:
        x, y = batch
        logits = self.net(x)
        losses, labelled = self._losses(logits, y)
        predicted = logits.argmax(1)
        # pixel by pixel: with nan_strategy="disable" torchmetrics takes no notice of weights
        self.metrics[f"{stage}_loss"].update(losses[labelled])
        for what in ("miou", "acc"):
            self.metrics[f"{stage}_{what}"].update(predicted, y)
        for what in ("miou", "acc", "loss"):
            # the run report hands them to the loggers, with the training loss, on one count of steps
            metric = self.metrics[f"{stage}_{what}"]
            self.log(f"{stage}/{what}", metric, on_step=False, on_epoch=True, logger=False, batch_size=len(y))
        each = losses.sum((1, 2)) / labelled.sum((1, 2)).clamp(min=1)
        return {"predicted": predicted, "losses": each}  # for the run report's pictures
