"""Small images with masks of labels as LightningDataModules: kept in memory as bytes, the masks too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor

from dlzoo.data.mask_batches import MaskAugment, MaskBatches
from dlzoo.data.masks import Masked
from dlzoo.data.preprocess import Preprocess
from dlzoo.errors import DataError

__all__ = ["InMemoryMasks"]


class InMemoryMasks(LightningDataModule):
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

    classes: tuple[str, ...]
    shape: ClassVar[tuple[int, int, int]]  # channels, height, width
    mean: ClassVar[tuple[float, ...]]  # of each channel over the training split, for pixels in [0, 1]
    std: ClassVar[tuple[float, ...]]
    published: ClassVar[tuple[int, int, int]]  # images of the training, the validation and the test split
    unlabelled: ClassVar[int]
    edition: str = ""  # how the data differ from the published ones

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
        super().__init__()
        name = type(self).__name__
        if num_classes != len(self.classes):
            raise ValueError(f"{name} has {len(self.classes)} classes, and num_classes is {num_classes}")
        if in_channels != self.shape[0]:
            raise ValueError(f"{name} has {self.shape[0]} channel(s), and in_channels is {in_channels}")
        if ignore_index != self.unlabelled:
            raise ValueError(f"{name} labels with {self.unlabelled} what has no label, and ignore_index is {ignore_index}")
        self.data_dir, self.ignore_index = Path(data_dir), ignore_index
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.channels_last = seed, channels_last
        self.augment = MaskAugment(None if crop is None else tuple(crop), flip, crops)
        self.preprocess = Preprocess(*self.shape, self.mean, self.std)
        self._splits: dict[str, Masked] | None = None

    @abstractmethod
    def read(self) -> dict[str, Masked]:
        """Reads the splits train, val and test."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        """Images that are trained on."""
        return self.published[0]

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return self.published[1] > 0

    @property
    def splits(self) -> dict[str, Masked]:
        """All splits, read when first asked for."""
        if self._splits is None:
            splits = self.read()
            self._check(splits)
            self._splits = splits
        return self._splits

    def prepare_data(self) -> None:
        """Finds out whether the files are there before anything starts."""
        _ = self.splits

    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    def train_dataloader(self) -> MaskBatches:
        shuffle = not (self.trainer and self.trainer.overfit_batches)  # overfitting takes the same batches again and again
        return self._batches("train", self.batch_size, augment=self.augment, shuffle=shuffle, drop_last=True)

    def val_dataloader(self) -> MaskBatches:
        return self._batches("val", self.eval_batch_size)

    def test_dataloader(self) -> MaskBatches:
        return self._batches("test", self.eval_batch_size)

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` test images as the network gets them, and their masks: (count, C, H, W), (count, H, W)."""
        images, masks = self.splits["test"]
        return self.preprocess.normalize(images[:count]), masks[:count].long()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are made on the device: nothing is left to do, and no tree of tensors to walk."""
        if isinstance(batch, tuple) and all(isinstance(tensor, Tensor) and tensor.device == device for tensor in batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _check(self, splits: dict[str, Masked]) -> None:
        """The files may be whole and yet not be this data set."""
        where, fix = f"the files of {type(self).__name__} under data_dir", "get them again from where they are published"
        for name, count in zip(("train", "val", "test"), self.published, strict=True):
            images, masks = splits[name]
            if images.shape != (count, *self.shape):
                what = f"expected {count} {name} images of {self.shape}, found {tuple(images.shape)}."
                raise DataError(what, where=where, fix=fix)
            if not ((masks < len(self.classes)) | (masks == self.unlabelled)).all():
                highest = masks[masks != self.unlabelled].max()
                what = f"the {name} masks have labels up to {highest}, and there are {len(self.classes)} classes."
                raise DataError(what, where=where, fix=fix)

    def _batches(self, split: str, batch_size: int, **options: Any) -> MaskBatches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        options |= {"seed": self.seed, "device": device, "channels_last": self.channels_last}
        return MaskBatches(
            self.splits[split], self.preprocess, batch_size=batch_size, rank=rank, world_size=world_size, **options
        )
