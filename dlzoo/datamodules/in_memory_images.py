"""Small images as LightningDataModules: kept in memory as bytes, augmented a whole batch at a time on the training device."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dlzoo.data.augment import BatchAugment
from dlzoo.data.batches import ImageBatches
from dlzoo.data.growth import Growth
from dlzoo.data.preprocess import Preprocess
from dlzoo.datamodules.in_memory import InMemorySplits

__all__ = ["InMemoryImages"]


class InMemoryImages(InMemorySplits):
    """What all small image sets share: their augmentation, their preprocessing, their loaders.

    A data set is a subclass that sets the class attributes and reads its files.

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

    shape: ClassVar[tuple[int, int, int]]  # channels, height, width
    mean: ClassVar[tuple[float, ...]]  # of each channel over the training split, for pixels in [0, 1]
    std: ClassVar[tuple[float, ...]]

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
        super().__init__(
            channels=self.shape[0],
            num_classes=num_classes,
            in_channels=in_channels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
        )
        self.channels_last = channels_last
        self.augment = BatchAugment(
            self.mean, self.std, crop_padding=crop_padding, flip=flip, cutout=cutout, randaugment=randaugment
        )
        self.growth = Growth(grow_from, grow_epochs)
        self._plain = BatchAugment(self.mean, self.std)
        channels, height, width = self.shape
        self.preprocess = Preprocess(channels, height, width, self.mean, self.std)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.shape

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` test images as the network gets them, and their labels: (count, C, H, W), (count,)."""
        return self.preprocess.normalize(self.splits.test_images[:count]), self.splits.test_labels[:count]

    def batches(self, samples: Tensor, labels: Tensor, train: bool) -> ImageBatches:
        return ImageBatches(
            samples,
            labels,
            batch_size=self.batch_size if train else self.eval_batch_size,
            augment=self.augment if train else self._plain,
            growth=self.growth if train else None,
            seed=self.seed,
            channels_last=self.channels_last,
            **self.placed(),
            **(self.training() if train else {}),
        )
