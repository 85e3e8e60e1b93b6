"""Segmentation: one label for each pixel."""

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from dlzoo.tasks.supervised import Supervised

__all__ = ["Segmentation"]


class Segmentation(Supervised):
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

    answers = "masks"

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
        super().__init__(net, optimizer, scheduler, decay_norms_and_biases)
        if 0 <= ignore_index < num_classes:
            raise ValueError(f"ignore_index must not be one of the {num_classes} labels, got {ignore_index}")
        self.save_hyperparameters(ignore=["net", "optimizer", "scheduler"])  # plain numbers: a checkpoint holds no code
        self.ignore_index = ignore_index
        # their own checks look through every pixel, twice
        options = {"num_classes": num_classes, "ignore_index": ignore_index, "validate_args": False}
        for stage in ("val", "test"):
            self.metrics[f"{stage}_miou"] = MulticlassJaccardIndex(**options)
            self.metrics[f"{stage}_acc"] = MulticlassAccuracy(**options, average="micro")
            self.metrics[f"{stage}_loss"] = MeanMetric(nan_strategy="disable")  # a NaN has to be seen

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        losses, labelled = self._losses(self.net(batch[0]), batch[1])
        return losses.sum() / labelled.sum().clamp(min=1)

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
