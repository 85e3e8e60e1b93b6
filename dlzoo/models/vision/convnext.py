"""ConvNeXt: a convolutional network rebuilt, step by step, with the habits of transformers.

What attention does in a transformer, a depthwise 7x7 convolution does here: it mixes places, each channel by itself. Then a
perceptron at every pixel mixes channels. One norm and one activation a block, layer norm instead of batch norm, convolutions of
stride 2 between the stages. Trained like a transformer, it is as good as one.

Source: Liu et al. 2022, A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545, section 2 and table 9.
Differs from it: nothing; the final norm stands behind the average over space, as in the authors' code.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.depthwise import DepthwiseConv2d
from dlzoo.nn.stochastic_depth import StochasticDepth

__all__ = ["Block", "ChannelNorm", "ConvNeXt", "convnext_tiny"]

EPSILON = 1e-6  # of the norms


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel.

    Args:
        channels: C.

    Shape:
        (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + scale * mlp(norm(depthwise(x))); the scale of each channel starts at almost nothing.

    Args:
        channels: C.
        stochastic_depth: how likely it is in training that an image skips the block.

    Shape:
        (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv2d(channels, 7, bias=True)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.skip = StochasticDepth(stochastic_depth)

    def forward(self, x: Tensor) -> Tensor:
        # With the channels last, a 1x1 convolution is a linear layer and a norm over channels reads one row of memory.
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (B, H, W, C)
        y = self.project(F.gelu(self.expand(y))) * self.scale
        return self.skip(y.permute(0, 3, 1, 2), x)


class ConvNeXt(nn.Module):
    """A stem of 4x4 patches, four stages of blocks with halvings between them, an average over space, a norm, a linear head.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        num_classes: width of the output.
        in_channels: channels of the image.
        stochastic_depth: of the last block; the first one has none, and between them it grows in proportion.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits; H and W from 32 pixels on.

    Raises:
        ValueError: depths and widths of different number, a number below 1; and in `forward`, a picture that is too small.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        if not depths or len(depths) != len(widths) or min(*depths, *widths) < 1:
            raise ValueError(f"depths and widths need one number above 0 a stage, got {tuple(depths)} and {tuple(widths)}")
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.least = 4 * 2 ** (len(depths) - 1)  # pixels of which one is left
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, 4), ChannelNorm(widths[0]))
        self.stages = nn.Sequential()  # blocks, a halving, blocks, ...
        last, block = max(sum(depths) - 1, 1), 0
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if i > 0:
                self.stages.append(nn.Sequential(ChannelNorm(widths[i - 1]), nn.Conv2d(widths[i - 1], width, 2, 2)))
            rates = [stochastic_depth * j / last for j in range(block, block + depth)]
            self.stages.append(nn.Sequential(*(Block(width, rate) for rate in rates)))
            block += depth
        self.norm = nn.LayerNorm(widths[-1], eps=EPSILON)
        self.head = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over space: (B, in_channels, H, W) -> (B, C, H / 32, W / 32), rounded down."""
        if min(x.shape[2:]) < self.least:
            raise ValueError(f"height and width must be at least {self.least}, got {x.shape[2]} and {x.shape[3]}")
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, C)
        return self.head(self.norm(x))  # (B, num_classes)


def convnext_tiny(num_classes: int = 1000, in_channels: int = 3, stochastic_depth: float = 0.1) -> ConvNeXt:
    """28,589,128 parameters; ImageNet in the paper: 82.1 % top-1 (table 1)."""
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), num_classes, in_channels, stochastic_depth)
