"""Small images as LightningDataModules: kept in memory as bytes, augmented a whole batch at a time on the training device."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor

from dlzoo.data.augment import BatchAugment
from dlzoo.data.batches import ImageBatches
from dlzoo.data.growth import Growth
from dlzoo.data.preprocess import Preprocess
from dlzoo.data.splits import Splits, held_out
from dlzoo.errors import DataError

__all__ = ["InMemoryImages"]


class InMemoryImages(LightningDataModule):
    """What all small image sets share: the cut into splits, the loaders, the preprocessing.

    A data set is a subclass that sets the class attributes and reads its files. The published test split is only ever given by
    `test_dataloader` and `test_images`; validation images are cut from the training split by a fixed permutation.

    Args:
        batch_size: images a training batch, over all devices together.
        eval_batch_size: images a validation or test batch, over all devices together.
        val_size: training images that validate; 0 validates on nothing.
        crop_padding: border round a training image from which a crop is taken; 0 for none.
        flip: mirror half of the training images.
        cutout: side of the square that is cut out of a training image; 0 for none.
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: what the model is built for; must be the data set's.
        in_channels: likewise.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: progressive resizing, the side of training images in the first epoch as a share of the full one; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, C, H, W), float32, normalised; y (B,), int64; both on the training device.

    Raises:
        ValueError: num_classes, in_channels, val_size or an augmentation does not fit the data set.
    """

    classes: tuple[str, ...]
    shape: ClassVar[tuple[int, int, int]]  # channels, height, width
    mean: ClassVar[tuple[float, ...]]  # of each channel over the training split, for pixels in [0, 1]
    std: ClassVar[tuple[float, ...]]
    published: ClassVar[tuple[int, int]]  # images in the training and in the test split
    edition: str = ""  # how the data found differ from the published ones; known after setup

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        val_size: int,
        crop_padding: int,
        flip: bool,
        cutout: int,
        seed: int,
        channels_last: bool,
        num_classes: int,
        in_channels: int,
        randaugment: int = 0,
        grow_from: float = 1.0,
        grow_epochs: int = 0,
    ) -> None:
        super().__init__()
        if num_classes != len(self.classes):
            raise ValueError(f"{type(self).__name__} has {len(self.classes)} classes, and num_classes is {num_classes}")
        if in_channels != self.shape[0]:
            raise ValueError(f"{type(self).__name__} has {self.shape[0]} channel(s), and in_channels is {in_channels}")
        if not 0 <= val_size < self.published[0]:
            raise ValueError(f"val_size must be in [0, {self.published[0]}), got {val_size}")
        self.batch_size, self.eval_batch_size, self.val_size = batch_size, eval_batch_size, val_size
        self.seed, self.channels_last = seed, channels_last
        self.augment = BatchAugment(
            self.mean, self.std, crop_padding=crop_padding, flip=flip, cutout=cutout, randaugment=randaugment
        )
        self.growth = Growth(grow_from, grow_epochs)
        self._plain = BatchAugment(self.mean, self.std)
        channels, height, width = self.shape
        self.preprocess = Preprocess(channels, height, width, self.mean, self.std)
        self._splits: Splits | None = None

    @abstractmethod
    def read(self) -> Splits:
        """Reads both splits, downloading what is missing."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        """Images that are trained on."""
        return self.published[0] - self.val_size

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return self.val_size > 0

    @property
    def splits(self) -> Splits:
        """Both published splits, read when first asked for."""
        if self._splits is None:
            splits = self.read()
            self._check(splits)
            self.edition = splits.edition
            self._splits = splits
        return self._splits

    def prepare_data(self) -> None:
        """Puts the files in place; Lightning calls it in one process of a machine before the others read them."""
        _ = self.splits

    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    def train_dataloader(self) -> ImageBatches:
        kept, _ = self._cut()
        return self._batches(
            self.splits.train_images[kept],
            self.splits.train_labels[kept],
            batch_size=self.batch_size,
            augment=self.augment,
            growth=self.growth,
            shuffle=not (self.trainer and self.trainer.overfit_batches),  # overfitting takes the same batches again and again
            drop_last=True,
        )

    def val_dataloader(self) -> ImageBatches | list[ImageBatches]:
        _, held = self._cut()
        return self._evaluated(self.splits.train_images[held], self.splits.train_labels[held]) if self.val_size else []

    def test_dataloader(self) -> ImageBatches:
        return self._evaluated(self.splits.test_images, self.splits.test_labels)

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` test images as the network gets them, and their labels: (count, C, H, W), (count,)."""
        return self.preprocess.normalize(self.splits.test_images[:count]), self.splits.test_labels[:count]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are made on the device: nothing is left to do, and no tree of tensors to walk."""
        if isinstance(batch, tuple) and all(isinstance(tensor, Tensor) and tensor.device == device for tensor in batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _check(self, splits: Splits) -> None:
        """The files may be whole and yet not be this data set."""
        found = (len(splits.train_labels), len(splits.test_labels))
        shapes = (*splits.train_images.shape, *splits.test_images.shape)
        if found != self.published or shapes != (found[0], *self.shape, found[1], *self.shape):
            raise DataError(
                f"expected {self.published[0]} training and {self.published[1]} test images of {self.shape}, "
                f"found {found[0]} of {tuple(splits.train_images.shape[1:])} and {found[1]} of "
                f"{tuple(splits.test_images.shape[1:])}.",
                where=f"the files of {type(self).__name__} under data_dir",
                fix="get them again from where they are published",
            )
        labels = torch.cat([splits.train_labels, splits.test_labels])
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise DataError(
                f"the labels reach from {labels.min()} to {labels.max()}, and there are {len(self.classes)} classes.",
                where=f"the files of {type(self).__name__} under data_dir",
                fix="get them again from where they are published",
            )

    def _cut(self) -> tuple[Tensor, Tensor]:
        """Indices into the published training split: those trained on, those that validate."""
        return held_out(len(self.splits.train_labels), self.val_size)

    def _evaluated(self, images: Tensor, labels: Tensor) -> ImageBatches:
        return self._batches(images, labels, batch_size=self.eval_batch_size, augment=self._plain)

    def _batches(self, images: Tensor, labels: Tensor, **options: Any) -> ImageBatches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return ImageBatches(
            images,
            labels,
            seed=self.seed,
            device=device,
            channels_last=self.channels_last,
            rank=rank,
            world_size=world_size,
            **options,
        )
