"""From a picture to what the network gets, the same way in evaluation, prediction and an exported model."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlzoo.errors import DataError

if TYPE_CHECKING:  # PIL is imported where it is used: most runs read no picture
    from PIL import Image

__all__ = ["Preprocess", "read_image", "to_tensor"]


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input.

    Args:
        channels: 1 (grey) or 3 (RGB); pictures of other modes are converted.
        height: of the input, in pixels.
        width: of the input.
        mean: of each channel, for pixels in [0, 1].
        std: of each channel.
        resize: length of the shorter side before the centre of height x width is cut out; None resizes straight to
            height x width.

    Raises:
        ValueError: the channels are neither 1 nor 3, mean and std do not have one value for each, or the crop is larger than
            what it is taken from.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} value(s) each, got {self.mean} and {self.std}")
        if self.resize is not None and self.resize < max(self.height, self.width):
            raise ValueError(f"resize must be at least the side of the crop, got {self.resize} for {self.height}x{self.width}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one input: (C, H, W)."""
        return self.channels, self.height, self.width

    def __call__(self, picture: str | Path | Image.Image) -> Tensor:
        """A picture, or the path of one -> (C, H, W), float32.

        Raises:
            DataError: the file is missing or is no readable picture.
        """
        return self.normalize(self.fit(read_image(picture, self.channels))[None])[0]

    def fit(self, image: Image.Image) -> Tensor:
        """Resizes and crops -> (C, height, width), uint8."""
        from PIL import Image

        width, height = image.size
        if self.resize is None:
            size = (self.width, self.height)
        elif width <= height:
            size = (self.resize, int(self.resize * height / width))
        else:
            size = (int(self.resize * width / height), self.resize)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((size[0] - self.width) / 2), round((size[1] - self.height) / 2)
        if (left, top) != (0, 0) or size != (self.width, self.height):
            image = image.crop((left, top, left + self.width, top + self.height))
        return to_tensor(image)

    def normalize(self, images: Tensor) -> Tensor:
        """(B, C, H, W), uint8 -> (B, C, H, W), float32, (pixel / 255 - mean) / std."""
        mean, std = self._statistics(images.device)
        return (images.float() / 255 - mean) / std

    def denormalize(self, x: Tensor) -> Tensor:
        """Back to colours: (B, C, H, W) or (C, H, W) -> the same shape, in [0, 1]."""
        mean, std = self._statistics(x.device)
        return (x.float() * std + mean).clamp(0, 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """What `as_dict` gave."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std


def read_image(picture: str | Path | Image.Image, channels: int) -> Image.Image:
    """Opens a picture, turns it upright, and makes it grey (1 channel) or RGB (3).

    Raises:
        DataError: the file is missing or is no readable picture.
    """
    from PIL import Image, ImageOps

    try:
        with nullcontext(picture) if isinstance(picture, Image.Image) else Image.open(picture) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _converted(upright, "L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise DataError(f"there is no picture {picture}.", where=str(picture), fix="give the path of a picture") from None
    except Exception as error:  # PIL's decoders raise many types, and each of them means this picture
        raise DataError(
            f"{picture} is not a readable picture ({error}).",
            where=str(picture),
            safe="all other files",
            fix="remove the file, or replace it by a good copy",
        ) from error


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: PIL would clip at 255 and leave white
        image = image.convert("I").point(lambda value: value * (255 / 65535) + 0).convert("L")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns when it goes to RGB at once
    return image if image.mode == mode else image.convert(mode)


def to_tensor(image: Image.Image) -> Tensor:
    """A grey or RGB picture -> (C, H, W), uint8."""
    channels, (width, height) = len(image.getbands()), image.size
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(height, width, channels).permute(2, 0, 1).contiguous()
