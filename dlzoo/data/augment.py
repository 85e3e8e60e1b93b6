"""Random crops, flips and cut-outs of a whole batch of small images at once.

An epoch's random numbers are drawn once, for all samples, from (seed, epoch); a batch looks its samples' numbers up. So what
happens to a sample does not depend on the batch size, the device or the rank. A crop is a window of the padded image; one
gather cuts the windows of a batch out of the bytes, and only the batch becomes floats.

Source: cutout is DeVries, Taylor 2017, https://arxiv.org/abs/1708.04552; padded crops and flips for CIFAR are as in
He, Zhang, Ren, Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2.
Differs from it: the border is black, as torchvision's RandomCrop has it; the paper pads after subtracting the mean.

Shapes: N images in the data set, B batch, C channels, H height, W width, P padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.data.randaugment import RandAugment
from dlzoo.data.streams import generator

__all__ = ["BatchAugment", "Draws", "PaddedImages"]


class Draws(NamedTuple):
    """The random numbers of an epoch, one row a sample (None where the augmentation is off)."""

    top: Tensor | None  # (N,) first row of the crop in the padded image
    left: Tensor | None  # (N,) first column
    flip: Tensor | None  # (N,) bool: mirrored left to right
    hole_row: Tensor | None  # (N,) centre of the square that is cut out
    hole_column: Tensor | None  # (N,)
    operations: Tensor | None = None  # (N, K) of RandAugment; they stay on the CPU, which calls them

    def rows(self, index: Tensor) -> "Draws":
        """The numbers of these samples, in this order."""
        return Draws(*(None if values is None else values[index] for values in self))

    def to(self, device: torch.device) -> "Draws":
        moved = Draws(*(None if values is None else values.to(device) for values in self[:-1]))
        return moved._replace(operations=self.operations)


class PaddedImages:
    """Images with a black border, from which crops are gathered.

    Args:
        images: (N, C, H, W), uint8.
        padding: width of the border.
        channels_last: crops come in this memory format.
    """

    def __init__(self, images: Tensor, *, padding: int = 0, channels_last: bool = False) -> None:
        count, channels, height, width = images.shape
        self.row, self.column = width + 2 * padding, 1  # steps in the flat bytes
        padded = F.pad(images, (padding,) * 4)  # (N, C, H + 2P, W + 2P)
        if channels_last:
            padded = padded.permute(0, 2, 3, 1)  # (N, H + 2P, W + 2P, C)
            self.row, self.column = self.row * channels, channels
            shape, steps = (height, width, channels), (self.row, self.column, 1)
        else:
            shape, steps = (channels, height, width), (self.row * (height + 2 * padding), self.row, 1)
        padded = padded.contiguous()
        self.image = padded[0].numel()
        self.channels_last = channels_last
        self.bytes, self.shape = padded.view(-1), shape
        span = sum((extent - 1) * step for extent, step in zip(shape, steps, strict=True)) + 1
        self.offsets = torch.arange(span, device=images.device).as_strided(shape, steps).reshape(-1)  # of a crop's pixels
        # Every byte starts a window; those that begin at a crop's corner are crops, the others are never asked for. A CPU
        # copies a window row by row, which is ten times as fast as pixel by pixel. Another device might lay the view out, for
        # which no memory is large enough.
        windows = (count * self.image - span + 1, *shape)
        self.windows = self.bytes.as_strided(windows, (1, *steps)) if images.device.type == "cpu" else None

    def starts(self, index: Tensor, top: Tensor | None, left: Tensor | None) -> Tensor:
        """Where the crops of these images begin in the flat bytes: (B,), (B,), (B,) -> (B,)."""
        start = index * self.image
        return start if top is None or left is None else start + top * self.row + left * self.column

    def take(self, starts: Tensor) -> Tensor:
        """The crops that begin there: (B,) -> (B, C, H, W), uint8."""
        if self.windows is not None:
            crops = self.windows.index_select(0, starts)
        else:
            crops = self.bytes[starts[:, None] + self.offsets].view(-1, *self.shape)
        return crops.permute(0, 3, 1, 2) if self.channels_last else crops


class BatchAugment:
    """Crop, flip, RandAugment, normalise and cut out, for whole batches.

    Args:
        mean: of each channel, for pixels in [0, 1].
        std: of each channel.
        crop_padding: border round the image from which a crop of the image's size is taken; 0 takes no crop.
        flip: mirror half of the images left to right.
        cutout: side of a square, centred anywhere in the image, that becomes the mean colour; 0 cuts nothing out.
        randaugment: magnitude of RandAugment, up to 30; 0 is off.

    Raises:
        ValueError: mean and std differ in length, a std is not positive, or a size is negative.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        crop_padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        randaugment: int = 0,
    ) -> None:
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std need one value a channel, std above 0; got {tuple(mean)} and {tuple(std)}")
        if crop_padding < 0 or cutout < 0:
            raise ValueError(f"crop_padding and cutout must be at least 0, got {crop_padding} and {cutout}")
        self.mean, self.std = tuple(mean), tuple(std)
        self.crop_padding, self.flip, self.cutout = crop_padding, flip, cutout
        self.randaugment = RandAugment(randaugment)
        self._factors: dict[tuple, tuple[Tensor, Tensor]] = {}

    @property
    def random(self) -> bool:
        """Whether anything is drawn."""
        return bool(self.crop_padding or self.flip or self.cutout or self.randaugment)

    def draw(self, count: int, height: int, width: int, *, seed: int, epoch: int) -> Draws:
        """The random numbers of all samples for one epoch, on the CPU.

        All five are always drawn, and RandAugment's from a stream of their own, so that switching one augmentation off leaves
        the others as they were.
        """
        random = generator("augment", seed, epoch)
        highs = (2 * self.crop_padding + 1, 2 * self.crop_padding + 1, 2, height, width)
        top, left, flip, row, column = (torch.randint(high, (count,), generator=random) for high in highs)
        return Draws(
            top if self.crop_padding else None,
            left if self.crop_padding else None,
            flip.bool() if self.flip else None,
            row if self.cutout else None,
            column if self.cutout else None,
            self.randaugment.draw(count, generator("randaugment", seed, epoch)) if self.randaugment else None,
        )

    def apply(self, crops: Tensor, draws: Draws | None = None) -> Tensor:
        """Flips, operates, normalises and cuts out: (B, C, H, W), uint8 -> (B, C, H, W), float32 in the same memory format."""
        if draws is not None and draws.flip is not None:
            crops = torch.where(draws.flip.view(-1, 1, 1, 1), crops.flip(-1), crops)
        if draws is not None and draws.operations is not None:
            crops = self.randaugment.apply(crops, draws.operations)
        x = self.normalize(crops)
        if draws is not None and draws.hole_row is not None and draws.hole_column is not None:
            rows = self._inside(draws.hole_row, x.shape[2])  # (B, H)
            columns = self._inside(draws.hole_column, x.shape[3])  # (B, W)
            x.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
        return x

    def normalize(self, images: Tensor) -> Tensor:
        """(pixel / 255 - mean) / std: (B, C, H, W), uint8 -> (B, C, H, W), float32 in the same memory format."""
        batch, channels, height, width = images.shape
        last = channels > 1 and images.stride(1) == 1 and images.is_contiguous(memory_format=torch.channels_last)
        factor, shift = self._factor(images.device, width if last else 0)
        if not last:
            return images.float().mul_(factor).add_(shift)
        # Rows of W * C values: the loop over an innermost dimension of 3 would be three times as slow.
        rows = images.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        return rows.float().mul_(factor).add_(shift).view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _factor(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        """Factor and shift of each channel, laid out for (C, H, W), or repeated for rows of `width` pixels."""
        if (device, width) not in self._factors:
            std = torch.tensor(self.std, dtype=torch.float64)
            pair = (1 / (255 * std), -torch.tensor(self.mean, dtype=torch.float64) / std)
            shaped = (value.repeat(width) if width else value.view(-1, 1, 1) for value in pair)
            self._factors[device, width] = tuple(value.float().to(device) for value in shaped)
        return self._factors[device, width]

    def _inside(self, centre: Tensor, extent: int) -> Tensor:
        """Which positions along one axis the square covers: (B,) -> (B, extent); what sticks out is lost."""
        offset = torch.arange(extent, device=centre.device) - (centre[:, None] - self.cutout // 2)
        return (offset >= 0) & (offset < self.cutout)
