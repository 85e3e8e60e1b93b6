"""RandAugment: two operations of fourteen, drawn for each image, all of one strength.

The strength is the same for all, so images that drew the same operation go through it together: a whole batch costs some forty
calls on the device that trains, however many images it has. An image gets the same bits alone, in a batch or on another rank.

Source: Cubuk, Zoph, Shlens, Le 2019, https://arxiv.org/abs/1909.13719, section 3; the operations and their ranges are those of
    torchvision.transforms.v2.RandAugment, with bilinear interpolation.
Differs from it: magnitude 0 changes nothing. In the paper's list some operations have no strength (auto-contrast, equalize).

Shapes: N images in the data set, B batch, C channels, H height, W width, K operations on an image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["OPERATIONS", "RandAugment"]

STRONGEST = 30  # the scale of magnitudes goes from 0 to this
SIGNED = {  # an operation of either direction -> its value at the largest magnitude; of shifts, in sides of the image
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "color": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
}
OPERATIONS = (*SIGNED, "identity", "posterize", "solarize", "autocontrast", "equalize")


class RandAugment:
    """Draws operations and applies them.

    Args:
        magnitude: strength of all operations, up to 30; 0 switches everything off.
        count: K.

    Raises:
        ValueError: the magnitude is not from 0 to 30, or the count below 1.
    """

    def __init__(self, magnitude: int, count: int = 2) -> None:
        if not 0 <= magnitude <= STRONGEST:
            raise ValueError(f"randaugment must be from 0 to {STRONGEST}, got {magnitude}")
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.magnitude, self.count = magnitude, count

    def __bool__(self) -> bool:
        return self.magnitude > 0

    def draw(self, size: int, random: torch.Generator) -> Tensor:
        """Which operations each image gets, as numbers for `apply`: (size, K)."""
        operation = torch.randint(len(OPERATIONS), (size, self.count), generator=random)
        backwards = torch.randint(2, (size, self.count), generator=random)
        return 2 * operation + backwards * (operation < len(SIGNED))

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The operations that were drawn, one after the other.

        Args:
            images: as bytes.
            drawn: rows of what `draw` gave, on the CPU: they decide what is called.

        Shape:
            (B, C, H, W), uint8; (B, K) -> (B, C, H, W), uint8 in the same memory format.
        """
        if not self.magnitude:
            return images
        for step in drawn.T:
            before, images = images, images.clone()
            for number in step.unique().tolist():
                rows = (step == number).nonzero().squeeze(1).to(images.device)
                operate = _operation(OPERATIONS[number // 2], self.magnitude, -1 if number % 2 else 1)
                images[rows] = operate(before[rows])
        return images


@functools.cache
def _operation(name: str, magnitude: int, sign: int) -> Callable[[Tensor], Tensor]:
    """What `name` does at this magnitude: (B, C, H, W), uint8 -> the same."""
    from torchvision.transforms.v2 import InterpolationMode  # a second and a half to import: only for those who use it
    from torchvision.transforms.v2 import functional as F

    share = magnitude / STRONGEST
    value = sign * share * SIGNED.get(name, 0.0)
    smooth = InterpolationMode.BILINEAR

    def moved(x: Tensor, right: float = 0.0, down: float = 0.0) -> Tensor:
        shift = [int(right * x.shape[-1]), int(down * x.shape[-2])]
        return F.affine(x, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0], interpolation=smooth)

    def sheared(x: Tensor, angles: list[float]) -> Tensor:
        return F.affine(x, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0, 0], interpolation=smooth)

    angle = math.degrees(math.atan(value))
    return {
        "shear_x": lambda x: sheared(x, [angle, 0.0]),
        "shear_y": lambda x: sheared(x, [0.0, angle]),
        "translate_x": lambda x: moved(x, right=value),
        "translate_y": lambda x: moved(x, down=value),
        "rotate": lambda x: F.rotate(x, value, interpolation=smooth),
        "brightness": lambda x: F.adjust_brightness(x, 1.0 + value),
        "color": lambda x: F.adjust_saturation(x, 1.0 + value),
        "contrast": lambda x: F.adjust_contrast(x, 1.0 + value),
        "sharpness": lambda x: F.adjust_sharpness(x, 1.0 + value),
        "identity": lambda x: x,
        "posterize": lambda x: F.posterize(x, 8 - round(4 * share)),
        "solarize": lambda x: F.solarize(x, 255 * (1.0 - share)),
        "autocontrast": F.autocontrast,
        "equalize": F.equalize,
    }[name]
