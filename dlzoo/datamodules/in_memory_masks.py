"""Small images with masks of labels as LightningDataModules: kept in memory as bytes, the masks too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from dlzoo.data.mask_batches import MaskAugment, MaskBatches
from dlzoo.data.masks import Masked
from dlzoo.data.preprocess import Preprocess
from dlzoo.datamodules.in_memory import InMemory

__all__ = ["InMemoryMasks"]


class InMemoryMasks(InMemory):
    """What all small sets of masks share: the splits, the loaders, the preprocessing.

    A data set is a subclass that sets the class attributes and reads its files. The test split is only ever given by
    `test_dataloader` and `test_images`.

    Args:
        data_dir: where the data sets lie.
        batch_size: crops a training batch, over all devices together.
        eval_batch_size: images a validation or test batch, over all devices together.
        crop: height and width of a training crop; None takes the whole image.
        crops: of each image in an epoch.
        flip: "none", "sideways", or "all" (eight ways).
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: what the model is built for; must be the data set's.
        in_channels: likewise.
        ignore_index: likewise; the label of pixels that nobody labelled.

    Batch:
        x (B, C, H, W), float32, normalised; y (B, H, W), int64, with ignore_index where there is no label.

    Raises:
        ValueError: num_classes, in_channels, ignore_index or an augmentation does not fit the data set.
    """

    shape: ClassVar[tuple[int, int, int]]  # channels, height, width
    mean: ClassVar[tuple[float, ...]]  # of each channel over the training split, for pixels in [0, 1]
    std: ClassVar[tuple[float, ...]]
    published: ClassVar[tuple[int, int, int]]  # images of the training, the validation and the test split
    unlabelled: ClassVar[int]

    def __init__(
        self,
        data_dir: str | Path,
        *,
        batch_size: int,
        eval_batch_size: int,
        crop: Sequence[int] | None,
        crops: int,
        flip: Literal["none", "sideways", "all"],
        seed: int,
        channels_last: bool,
        num_classes: int,
        in_channels: int,
        ignore_index: int,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        self.refuse_others(self.shape[0], num_classes, in_channels)
        name = type(self).__name__
        if ignore_index != self.unlabelled:
            raise ValueError(f"{name} labels with {self.unlabelled} what has no label, and ignore_index is {ignore_index}")
        self.data_dir, self.ignore_index = Path(data_dir), ignore_index
        self.channels_last = channels_last
        self.augment = MaskAugment(None if crop is None else tuple(crop), flip, crops)
        self.preprocess = Preprocess(*self.shape, self.mean, self.std)

    @abstractmethod
    def read(self) -> dict[str, Masked]:
        """Reads the splits train, val and test."""

    @property
    def train_size(self) -> int:
        """Images that are trained on."""
        return self.published[0]

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return self.published[1] > 0

    def train_dataloader(self) -> MaskBatches:
        return self._batches("train", train=True)

    def val_dataloader(self) -> MaskBatches:
        return self._batches("val", train=False)

    def test_dataloader(self) -> MaskBatches:
        return self._batches("test", train=False)

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` test images as the network gets them, and their masks: (count, C, H, W), (count, H, W)."""
        images, masks = self.splits["test"]
        return self.preprocess.normalize(images[:count]), masks[:count].long()

    def check(self, splits: dict[str, Masked]) -> None:
        for name, count in zip(("train", "val", "test"), self.published, strict=True):
            images, masks = splits[name]
            if images.shape != (count, *self.shape):
                raise self.unlike(f"expected {count} {name} images of {self.shape}, found {tuple(images.shape)}.")
            if not ((masks < len(self.classes)) | (masks == self.unlabelled)).all():
                highest = masks[masks != self.unlabelled].max()
                raise self.unlike(f"the {name} masks have labels up to {highest}, and there are {len(self.classes)} classes.")

    def _batches(self, split: str, train: bool) -> MaskBatches:
        return MaskBatches(
            self.splits[split],
            self.preprocess,
            batch_size=self.batch_size if train else self.eval_batch_size,
            augment=self.augment if train else None,
            seed=self.seed,
            channels_last=self.channels_last,
            **self.placed(),
            **(self.training() if train else {}),
        )
