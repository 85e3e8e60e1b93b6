"""MobileNetV2: inverted residual blocks, made for telephones.

A convolution over space and channels at once is split in two: each channel is filtered by itself (depthwise, cheap), and a 1x1
convolution mixes the channels. The block turns the bottleneck of ResNet round: its ends are narrow and joined by the shortcut,
its inside is six times as wide. No activation follows the last convolution of a block: a relu would destroy what little fits
into the narrow end.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen 2018, MobileNetV2, https://arxiv.org/abs/1801.04381: section 3, table 2.
Differs from it: dropout of 0.2 before the head, as in torchvision; `mobilenet_v2_cifar` is not in the paper.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from dlzoo.nn.depthwise import DepthwiseConv2d

__all__ = ["STAGES", "InvertedResidual", "MobileNetV2", "mobilenet_v2", "mobilenet_v2_cifar"]

# table 2: (expansion t, channels c, blocks n, stride s of the first block)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """1x1 up to expansion * in_channels, 3x3 of each channel, 1x1 down; a shortcut where the shape stays.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: step of the 3x3 convolution; 2 halves height and width.
        expansion: how many times wider the inside is; with 1 there is no first 1x1 convolution.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 6) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.expand = _conv_norm_relu6(nn.Conv2d(in_channels, inner, 1, bias=False)) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_norm_relu6(DepthwiseConv2d(inner, 3, stride))
        self.project = nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))  # (B, expansion * in_channels, H / stride, W / stride)
        y = self.project(y)  # (B, out_channels, H / stride, W / stride)
        if self.shortcut:
            y += x  # a norm's gradient does not need the norm's output
        return y


class MobileNetV2(nn.Module):
    """A 3x3 stem, stages of inverted residuals, a 1x1 convolution, an average over space, dropout, a linear head.

    Args:
        width: the paper's width multiplier, 0.35 to 1.4; channels are rounded to a multiple of 8.
        num_classes: width of the output.
        in_channels: channels of the image.
        stem: "large" (the map is 1/32 of the image) or "small" (the first two strides are 1: 1/8, for images of 32x32).
        dropout: share of the averages that each training step sets to 0.
        stages: rows of (expansion, channels, blocks, stride of the first block), before the width is applied.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: no stages, a width that is not positive, a number below 1, an unknown stem, dropout outside [0, 1).
    """

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: Literal["large", "small"] = "large",
        dropout: float = 0.2,
        stages: Sequence[tuple[int, int, int, int]] = STAGES,
    ) -> None:
        super().__init__()
        if not stages or min(min(row) for row in stages) < 1:
            raise ValueError(f"stages must name at least one row of four numbers from 1 on, got {stages}")
        if width <= 0:
            raise ValueError(f"width must be above 0, got {width}")
        if min(num_classes, in_channels) < 1:
            raise ValueError(f"num_classes and in_channels must be at least 1, got {num_classes} and {in_channels}")
        if stem not in ("small", "large"):
            raise ValueError(f"stem must be 'small' or 'large', got {stem!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        whole = 2 if stem == "small" else 0  # of the strides, this many are left out
        channels = _round8(32 * width)
        self.stem = _conv_norm_relu6(nn.Conv2d(in_channels, channels, 3, 1 if whole else 2, padding=1, bias=False))
        self.stages = nn.Sequential()
        for i, (expansion, out_channels, blocks, stride) in enumerate(stages):
            stage = nn.Sequential()
            for j in range(blocks):
                step = stride if j == 0 and i >= whole else 1
                stage.append(InvertedResidual(channels, _round8(out_channels * width), step, expansion))
                channels = _round8(out_channels * width)
            self.stages.append(stage)
        last = _round8(1280 * max(1.0, width))  # a narrow network keeps its last layer: section 4, "Trade-off hyper parameters"
        self.last = _conv_norm_relu6(nn.Conv2d(channels, last, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over space: (B, in_channels, H, W) -> (B, C, H / s, W / s), rounded up; s is 32 or 8."""
        return self.last(self.stages(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, C)
        return self.head(self.dropout(x))  # (B, num_classes)


def _conv_norm_relu6(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU6(inplace=True))


def _round8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of the number."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def mobilenet_v2(width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2) -> MobileNetV2:
    """3,504,872 parameters (paper: 3.4 M); ImageNet in the paper: 72.0 % top-1 (table 4); width 1.4: 6.1 M (6.9 M), 74.7 %."""
    return MobileNetV2(width, num_classes, in_channels, dropout=dropout)


def mobilenet_v2_cifar(width: float = 1.0, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.2) -> MobileNetV2:
    """2,236,682 parameters; MobileNetV2 with the small stem, for 32x32 images. Not in the paper."""
    return MobileNetV2(width, num_classes, in_channels, "small", dropout)
