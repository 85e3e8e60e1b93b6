"""Batches of images that lie in memory, augmented a whole batch at a time on the device that trains.

A data set of small images fits into memory as bytes, and then no worker process, no per-sample Python and no copying between
processes is needed: a batch is a gather and three arithmetic passes.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.data.augment import BatchAugment, PaddedImages
from dlzoo.data.growth import Growth
from dlzoo.data.order import EpochOrder, OrderedBatches

__all__ = ["ImageBatches"]


class ImageBatches(OrderedBatches):
    """Iterates over (x, y) batches of images in memory; takes the place of a DataLoader.

    Order and augmentation are pure functions of (seed, epoch, index). Iterating again without `set_epoch` is the next epoch.

    Args:
        images: (N, C, H, W), uint8.
        labels: (N,), int64.
        batch_size: images a batch, over all ranks together.
        augment: what is done to a batch; its mean and std normalise.
        shuffle: a new order each epoch.
        seed: the run's seed.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        growth: the size of the images over the epochs; None gives them as they are.
        device: where the images are kept and augmented, and the batches come from.
        channels_last: batches in this memory format.
        rank: which share of each batch this process takes.
        world_size: processes that share each batch.

    Shape:
        yields x (B, C, H, W), float32 and y (B,), int64.

    Raises:
        ValueError: images or labels have another type or shape.
        ConfigError: the batch size does not go with the number of ranks.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augment: BatchAugment,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        growth: Growth | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 of shape (N, C, H, W), got {images.dtype} of shape {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be int64 of shape ({len(images)},), got {labels.dtype} {tuple(labels.shape)}")
        if images.shape[1] != len(augment.mean):
            raise ValueError(f"images have {images.shape[1]} channels, and augment has means for {len(augment.mean)}")
        self.sampler = EpochOrder(
            len(images),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        self.batch_size, self.augment, self.device = batch_size, augment, torch.device(device)
        self.growth = growth or Growth()
        self.labels = labels.to(self.device)
        self._shape = images.shape
        self._images = PaddedImages(images.to(self.device), padding=augment.crop_padding, channels_last=channels_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order, augment, device = self.sampler, self.augment, self.device
        first = order.start()
        index = order.permutation()
        draws = None
        count, _, height, width = self._shape
        size = tuple(self.growth.side(side, order.epoch) for side in (height, width))
        if augment.random:
            draws = augment.draw(count, height, width, seed=order.seed, epoch=order.epoch).rows(index).to(device)
        index = index.to(device)
        starts = self._images.starts(index, draws and draws.top, draws and draws.left)
        labels = self.labels[index]
        for batch in range(first, len(order)):
            low, high = order.share(batch)
            x = augment.apply(self._images.take(starts[low:high]), draws and draws.rows(slice(low, high)))
            if size != (height, width):
                x = F.interpolate(x, size, mode="bilinear", antialias=True)
            order.gave(batch)
            yield x, labels[low:high]
