"""Squeeze and excitation: the image as a whole decides how much each of its channels counts.

Squeeze: the average over space, one number for each channel. Excitation: two small dense layers, narrow in between, give a
gate from 0 to 1 for each channel. The map is multiplied by its gates.

Source: Hu, Shen, Sun 2017, Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, section 3.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable

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

    def gates(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels), from 0 to 1."""
        return self.excite(self.activation(self.squeeze(x.mean((2, 3))))).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x)[:, :, None, None]
