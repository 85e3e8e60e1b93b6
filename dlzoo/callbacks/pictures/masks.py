"""Pictures of a task whose answer is a label for each pixel: overlays, predictions beside the truth, the confusion matrix."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlzoo.plots import figure
from dlzoo.plots.confusion import confusion
from dlzoo.plots.images import save_image
from dlzoo.plots.masks import mask_rows

__all__ = ["MaskPictures"]

SHOWN = 4  # pictures of a figure

Shown = tuple[float, Tensor, Tensor, Tensor]  # loss, input, truth, prediction


class MaskPictures:
    """Draws samples.png, example.png, masks.png (the first of the split), mistakes.png (the worst of it) and confusion.png.

    Args:
        folder: where they go.
        title: over the pictures.
        data: the datamodule: its classes, its preprocessing, its test images.
        mistakes: how many of the worst to show; a figure holds four of these large pictures at most.
    """

    def __init__(self, folder: Path, title: str, data: Any, mistakes: int) -> None:
        self.folder, self.title, self.data, self.mistakes = folder, title, data, min(mistakes, SHOWN)
        self.clear()

    def first(self, batch: tuple[Tensor, Tensor]) -> None:
        """The first training batch, and one test picture as a file."""
        images, masks = (each[:SHOWN].detach().cpu() for each in batch)
        shown = self.data.preprocess.denormalize(images)
        title = f"{self.title}: the first batch as the network sees it"
        figure.save(mask_rows(shown, masks, None, self.data.classes, title), self.folder / "samples.png")
        images, _ = self.data.test_images(1)
        if len(images):
            save_image(self.data.preprocess.denormalize(images)[0], self.folder / "example.png")

    def clear(self) -> None:
        """Forgets the last evaluation."""
        self._matrix: Tensor | None = None
        self._first: list[Shown] = []
        self._worst: list[Shown] = []

    def watch(self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> None:
        """Adds an evaluated batch to the confusion matrix; keeps the first pictures and the worst.

        Args:
            outputs: of the step: predicted (B, H, W), losses (B,).
            batch: images and masks.
        """
        (images, masks), predicted, classes = batch, outputs["predicted"], len(self.data.classes)
        labelled = (masks >= 0) & (masks < classes)
        counts = torch.bincount(masks[labelled] * classes + predicted[labelled], minlength=classes**2)
        counts = counts.reshape(classes, classes)
        self._matrix = counts if self._matrix is None else self._matrix + counts
        for index, loss in enumerate(outputs["losses"].tolist()):
            early = len(self._first) < SHOWN
            bad = len(self._worst) < self.mistakes or (self.mistakes and loss > self._worst[-1][0])
            if early or bad:
                kept = (loss, images[index].cpu(), masks[index].cpu(), predicted[index].cpu())
                self._first += [kept] * early
                self._worst = sorted([*self._worst, *[kept] * bool(bad)], key=lambda shown: -shown[0])[: self.mistakes]

    def gather(self, strategy: Any) -> None:
        """Adds up what the ranks have counted; every rank takes part."""
        if self._matrix is not None:
            self._matrix = strategy.reduce(self._matrix, reduce_op="sum")

    def draw(self, split: str) -> None:
        """The pictures of the evaluation that was watched."""
        if self._matrix is None:
            return
        matrix = self._matrix.cpu()
        names = [f"{name} {share}" for name, share in zip(self.data.classes, _overlaps(matrix), strict=True)]
        title = f"{self.title}, {split}"
        figure.save(confusion(matrix, self.data.classes, f"{title}: pixels"), self.folder / "confusion.png")
        self._save(self._first, names, f"{title}: intersection over union by label, and the first pictures", "masks.png")
        if self._worst:
            self._save(self._worst, names, f"{title}: intersection over union, and the worst", "mistakes.png")

    def _save(self, shown: list[Shown], names: list[str], title: str, file: str) -> None:
        losses, images, truth, predicted = zip(*shown, strict=True)
        images = self.data.preprocess.denormalize(torch.stack(images))
        captions = [f"loss {loss:.2f}" for loss in losses]
        figure.save(mask_rows(images, torch.stack(truth), torch.stack(predicted), names, title, captions), self.folder / file)


def _overlaps(matrix: Tensor) -> list[str]:
    """Intersection over union of each class, as text; a class that is nowhere has none."""
    both, either = matrix.diag(), matrix.sum(0) + matrix.sum(1) - matrix.diag()
    return [f"{a / b:.2f}" if b else "-" for a, b in zip(both.tolist(), either.tolist(), strict=True)]
