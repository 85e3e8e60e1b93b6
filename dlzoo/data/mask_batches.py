"""Batches of images with their masks: both are cropped, mirrored and turned alike, and only the batch becomes floats.

An epoch's random numbers are drawn once, for all samples, from (seed, epoch): what happens to a sample depends neither on the
batch size nor on the device or the rank. A crop lies inside the image, so that no pixel of a mask has to be made up.

Shapes: N images, B batch, C channels, H height, W width, h and w those of a crop.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlzoo.data.masks import Masked
from dlzoo.data.order import EpochOrder, OrderedBatches
from dlzoo.data.preprocess import Preprocess
from dlzoo.data.streams import generator

__all__ = ["MaskAugment", "MaskBatches"]


@dataclass(frozen=True)
class MaskAugment:
    """What is done to an image and its mask in training.

    Args:
        crop: height and width of a random crop; None takes the whole image.
        flip: "none", "sideways" (half of them are mirrored: the sky stays above), or "all" (also upside down and, where the
            crop is square, with rows and columns exchanged: all eight ways to lay a picture that has no above).
        crops: of each image in an epoch.

    Raises:
        ValueError: a crop that is not two numbers above 0, or fewer than 1 crop.
    """

    crop: Sequence[int] | None = None
    flip: Literal["none", "sideways", "all"] = "none"
    crops: int = 1

    def __post_init__(self) -> None:
        if self.crop is not None and (len(self.crop) != 2 or min(self.crop) < 1):
            raise ValueError(f"crop must be a height and a width, got {list(self.crop)}")
        if self.flip not in ("none", "sideways", "all"):
            raise ValueError(f"flip must be 'none', 'sideways' or 'all', got {self.flip!r}")
        if self.crops < 1:
            raise ValueError(f"crops must be at least 1, got {self.crops}")

    def draw(self, count: int, height: int, width: int, *, seed: int, epoch: int) -> Tensor:
        """The random numbers of `count` samples for one epoch: top, left, sideways, upside down, exchanged; (count, 5).

        All five are always drawn, so that switching one off leaves the others as they were.
        """
        h, w = self.crop or (height, width)
        random = generator("augment masks", seed, epoch)
        highs = (height - h + 1, width - w + 1, 2, 2, 2)
        drawn = torch.stack([torch.randint(high, (count,), generator=random) for high in highs], 1)
        kept = torch.tensor([1, 1, self.flip != "none", self.flip == "all", self.flip == "all" and h == w])
        return drawn * kept

    def apply(self, image: Tensor, mask: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(C, H, W) and (H, W) -> (C, h, w) and (h, w)."""
        top, left, sideways, upside_down, exchanged = numbers
        h, w = self.crop or mask.shape
        results = []
        for pixels in (image, mask):
            pixels = pixels[..., top : top + h, left : left + w]
            pixels = pixels.flip([-1] * bool(sideways) + [-2] * bool(upside_down))
            results.append(pixels.mT if exchanged else pixels)
        return results[0], results[1]


class MaskBatches(OrderedBatches):
    """Iterates over (x, y) batches of images and masks in memory; takes the place of a DataLoader.

    Order and augmentation are pure functions of (seed, epoch, index). Iterating again without `set_epoch` is the next epoch.

    Args:
        data: images and masks.
        preprocess: its mean and std normalise.
        batch_size: samples a batch, over all ranks together.
        augment: what is done to a sample; None does nothing to it.
        shuffle: a new order each epoch.
        seed: the run's seed.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        device: where the images are kept, and the batches come from.
        channels_last: batches in this memory format.
        rank, world_size: which share of each batch this process takes, and of how many.

    Shape:
        yields x (B, C, h, w), float32, and y (B, h, w), int64.

    Raises:
        ValueError: the crop is larger than the images.
    """

    def __init__(
        self,
        data: Masked,
        preprocess: Preprocess,
        *,
        batch_size: int,
        augment: MaskAugment | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        size = tuple(data.masks.shape[1:])
        if augment and augment.crop and (augment.crop[0] > size[0] or augment.crop[1] > size[1]):
            raise ValueError(f"crop must lie inside the images, which are {size[0]}x{size[1]}, got {list(augment.crop)}")
        self.images, self.masks = data.images.to(device), data.masks.to(device)
        self.preprocess, self.augment, self.batch_size = preprocess, augment, batch_size
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.sampler = EpochOrder(
            len(data.masks) * (augment.crops if augment else 1),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order, augment, count = self.sampler, self.augment, len(self.masks)
        first = order.start()
        samples = order.permutation()
        drawn = None
        if augment:
            height, width = self.masks.shape[1:]
            drawn = augment.draw(order.size, height, width, seed=order.seed, epoch=order.epoch)[samples].tolist()
        index = (samples % count).tolist()
        for batch in range(first, len(order)):
            low, high = order.share(batch)
            if drawn is None:
                images, masks = self.images[index[low:high]], self.masks[index[low:high]]
            else:
                pairs = [augment.apply(self.images[index[i]], self.masks[index[i]], drawn[i]) for i in range(low, high)]
                images, masks = (torch.stack(each) for each in zip(*pairs, strict=True))
            x = self.preprocess.normalize(images).contiguous(memory_format=self.layout)
            order.gave(batch)
            yield x, masks.long()
