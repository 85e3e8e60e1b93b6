"""Squeeze and excitation: the image as a whole decides how much each of its channels counts.

Squeeze: the average over space, one number for each channel. Excitation: two small dense layers, narrow in between, give a
gate from 0 to 1 for each channel. The map is multiplied by its gates.

Source: Hu, Shen, Sun 2017, Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, section 3.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a gate that depends on the averages of all.

    Args:
        channels: of the map.
        squeezed: width between the two dense layers. The paper: channels / 16.
        activation: between the two; the paper's is relu, EfficientNet's is silu.

    Shape:
        (B, channels, H, W) -> (B, channels, H, W).

    Raises:
        ValueError: channels or squeezed is below 1.
    """

    def __init__(self, channels: int, squeezed: int, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("squeezed", squeezed)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)
        self.activation = activation

    def gates(self, average: Tensor) -> Tensor:
        """(B, channels), the average over space -> (B, channels), from 0 to 1."""
        return self.excite(self.activation(self.squeeze(average))).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not torch.compiler.is_exporting():
            x, average = _Average.apply(x)
        else:
            average = x.mean((2, 3))
        return x * self.gates(average)[:, :, None, None]


class _Average(torch.autograd.Function):
    """A map and its average over space.

    Left to itself, autograd writes the average's gradient out as a map, in NCHW order whatever the other one's is, before it
    adds the two: in a training step of EfficientNet-B0 on a CPU that takes longer than the sum.
    """

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), x.mean((2, 3))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.pixels = inputs[0].shape[2] * inputs[0].shape[3]

    @staticmethod
    def backward(ctx: Any, of_map: Tensor, of_average: Tensor) -> Tensor:
        return of_map + (of_average / ctx.pixels)[:, :, None, None]
