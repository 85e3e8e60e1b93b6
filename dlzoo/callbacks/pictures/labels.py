"""Pictures of a task whose answer is one label: the first batch, the confusion matrix, the worst mistakes."""

import heapq
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlzoo.callbacks.pictures.inputs import look
from dlzoo.plots import figure
from dlzoo.plots.confusion import Groups, confusion

__all__ = ["LabelPictures"]

SHOWN = 40  # samples of the first batch


class LabelPictures:
    """Draws samples.png, example.png, confusion.png and mistakes.png; superclasses.png where the classes form some.

    Args:
        folder: where they go.
        title: over the pictures.
        data: the datamodule: its classes, its preprocessing, its test inputs.
        mistakes: how many of the worst to show.
    """

    def __init__(self, folder: Path, title: str, data: Any, mistakes: int) -> None:
        self.folder, self.title, self.data, self.mistakes = folder, title, data, mistakes
        self.clear()

    def first(self, batch: tuple[Tensor, Tensor]) -> None:
        """The first training batch, and one test input as a file."""
        inputs, labels = batch
        if view := look(self.data, inputs):
            shown = inputs[:SHOWN].detach().float().cpu()
            captions = [self.data.classes[label] for label in labels[:SHOWN].tolist()]
            title = f"{self.title}: the first batch as the network sees it"
            figure.save(view.grid(shown, captions, title), self.folder / "samples.png")
        inputs, _ = self.data.test_images(1)
        if len(inputs) and (view := look(self.data, inputs)):
            view.save(inputs[0], self.folder)

    def clear(self) -> None:
        """Forgets the last evaluation."""
        self._matrix: Tensor | None = None
        self._worst: list[tuple[float, int, Tensor, int, Tensor]] = []  # a heap: the least bad on top

    def watch(self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> None:
        """Adds an evaluated batch to the confusion matrix and keeps its worst mistakes.

        Args:
            outputs: of the step: logits (B, K), losses (B,).
            batch: inputs and labels.
        """
        (inputs, labels), logits = batch, outputs["logits"]
        classes = logits.shape[1]
        predicted = logits.argmax(1)
        counts = torch.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
        self._matrix = counts if self._matrix is None else self._matrix + counts
        if look(self.data, inputs) is None:
            return
        losses = outputs["losses"].masked_fill(predicted == labels, -1.0)
        for index in losses.topk(min(self.mistakes, len(losses))).indices.tolist():
            loss = losses[index].item()
            full = len(self._worst) == self.mistakes
            if loss < 0 or (full and loss <= self._worst[0][0]):
                break
            # the count breaks ties, so that tensors are never compared
            entry = (loss, len(self._worst) + id(inputs), inputs[index].cpu(), labels[index].item(), logits[index].cpu())
            heapq.heapreplace(self._worst, entry) if full else heapq.heappush(self._worst, entry)

    def gather(self, strategy: Any) -> None:
        """Adds up what the ranks have counted; every rank takes part."""
        if self._matrix is not None:
            self._matrix = strategy.reduce(self._matrix, reduce_op="sum")

    def draw(self, split: str) -> None:
        """The pictures of the evaluation that was watched."""
        if self._matrix is None:
            return
        classes, title = self.data.classes, f"{self.title}, {split}"
        groups = None
        if of := getattr(self.data, "superclass_of", ()):
            groups = Groups(self.data.superclasses, of)
            counts = groups.counts(self._matrix)
            figure.save(confusion(counts, groups.names, f"{title}: superclasses"), self.folder / "superclasses.png")
        figure.save(confusion(self._matrix.cpu(), classes, title, groups), self.folder / "confusion.png")
        worst = sorted(self._worst, key=lambda entry: -entry[0])
        if worst:
            inputs = torch.stack([entry[2] for entry in worst])
            captions = [_caption(entry[3], entry[4], classes) for entry in worst]
            view = look(self.data, inputs)
            figure.save(view.grid(inputs, captions, f"{title}: the worst mistakes"), self.folder / "mistakes.png")


def _caption(label: int, logits: Tensor, classes: tuple[str, ...]) -> str:
    probabilities = logits.softmax(0)
    top = int(probabilities.argmax())
    return f"{classes[top]} {probabilities[top]:.2f}, is {classes[label]}"
