"""EfficientNet: a network found by search, then made larger in depth, width and resolution together.

Its block widens the map with a 1x1 convolution, filters each channel by itself (depthwise), weighs the channels (squeeze and
excitation) and narrows again; the narrow ends are joined by a shortcut. A network of twice the cost is best had by growing all
three dimensions at once: depth by 1.2 ** phi, width by 1.1 ** phi, the side of the image by 1.15 ** phi, which costs
(1.2 * 1.1**2 * 1.15**2) ** phi = 1.92 ** phi. V2 replaces the first blocks' depthwise convolutions by whole ones, which an
accelerator computes faster.

Source: Tan, Le 2019, EfficientNet, https://arxiv.org/abs/1905.11946: table 1 (B0), section 3.3 (scaling);
    Tan, Le 2021, EfficientNetV2, https://arxiv.org/abs/2104.00298: figure 2 and table 4.
Differs from it: as torchvision, it pads in equal parts on both sides, gives V2's stages M and L the sizes of the authors' code
    (the paper has only S), and takes 288 pixels for B2; `efficientnet_b0_cifar` is not in the paper.

Shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.depthwise import DepthwiseConv2d
from dlzoo.nn.squeeze_excite import SqueezeExcite
from dlzoo.nn.stochastic_depth import StochasticDepth

__all__ = [
    *("B0", "COEFFICIENTS", "EfficientNet", "FusedMBConv", "MBConv", "Stage", "compound", "scaled", "efficientnet_b0_cifar"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5"),
    *("efficientnet_b6", "efficientnet_b7", "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
]


@dataclass(frozen=True)
class Stage:
    """Blocks of one width; a row of the paper's table.

    Args:
        expansion: how many times wider the inside of a block is.
        kernel_size: of the convolution over space.
        stride: of the first block; the others keep the size.
        channels: of the output.
        blocks: how many.
        fused: `FusedMBConv` in place of `MBConv`.
    """

    expansion: int
    kernel_size: int
    stride: int
    channels: int
    blocks: int
    fused: bool = False


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)

# Width, depth and the side of the image, of B0 to B7, as published with the weights. To a tenth they are `compound(phi)` of
# phi = 0, 0.5, 1, 2 and 3.2; from B5 on the authors' networks are less deep for their width than the formula has them.
COEFFICIENTS = (
    (1.0, 1.0, 224),
    (1.0, 1.1, 240),
    (1.1, 1.2, 260),
    (1.2, 1.4, 300),
    (1.4, 1.8, 380),
    (1.6, 2.2, 456),
    (1.8, 2.6, 528),
    (2.0, 3.1, 600),
)


def compound(phi: float) -> tuple[float, float, float]:
    """How many times wider, deeper and of larger side than B0 a network of 1.92 ** phi times the cost is: section 3.3."""
    return 1.1**phi, 1.2**phi, 1.15**phi


def scaled(stages: Sequence[Stage], width: float, depth: float) -> tuple[Stage, ...]:
    """Stages of `width` times as many channels, rounded to a multiple of 8, and `depth` times as many blocks, rounded up."""
    return tuple(
        Stage(s.expansion, s.kernel_size, s.stride, _channels(s.channels * width), math.ceil(s.blocks * depth), s.fused)
        for s in stages
    )


class MBConv(nn.Module):
    """The inverted bottleneck: widen, filter each channel, weigh the channels, narrow; a shortcut if the shape stays.

    Args:
        in_channels: channels of the input.
        stage: its expansion, kernel_size and channels are this block's.
        stride: 2 halves height and width.
        drop: probability to leave the branch of an image out in training, where there is a shortcut.

    Shape:
        (B, in_channels, H, W) -> (B, stage.channels, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, stage: Stage, stride: int = 1, drop: float = 0.0) -> None:
        super().__init__()
        inner = in_channels * stage.expansion
        self.expand = _conv_norm_act(nn.Conv2d(in_channels, inner, 1, bias=False)) if inner > in_channels else nn.Identity()
        self.depthwise = _conv_norm_act(DepthwiseConv2d(inner, stage.kernel_size, stride))
        self.excite = SqueezeExcite(inner, max(1, in_channels // 4), F.silu)
        self.project = nn.Sequential(nn.Conv2d(inner, stage.channels, 1, bias=False), nn.BatchNorm2d(stage.channels))
        self.join = StochasticDepth(drop) if stride == 1 and in_channels == stage.channels else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))  # (B, in_channels * expansion, H / stride, W / stride)
        y = self.project(self.excite(y))
        return y if self.join is None else self.join(y, x)


class FusedMBConv(nn.Module):
    """`MBConv` with a whole convolution in place of the widening and the depthwise one, and without squeeze and excitation.

    With an expansion of 1 that convolution is all there is. Arguments and shapes are those of `MBConv`.
    """

    def __init__(self, in_channels: int, stage: Stage, stride: int = 1, drop: float = 0.0) -> None:
        super().__init__()
        size, narrow = stage.kernel_size, stage.expansion > 1
        inner = in_channels * stage.expansion if narrow else stage.channels
        self.fused = _conv_norm_act(nn.Conv2d(in_channels, inner, size, stride, size // 2, bias=False))
        last = nn.Sequential(nn.Conv2d(inner, stage.channels, 1, bias=False), nn.BatchNorm2d(stage.channels))
        self.project = last if narrow else nn.Identity()
        self.join = StochasticDepth(drop) if stride == 1 and in_channels == stage.channels else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.fused(x))
        return y if self.join is None else self.join(y, x)


class EfficientNet(nn.Module):
    """A stem, stages of inverted bottlenecks, a 1x1 convolution, an average over space, a linear head.

    Args:
        stages: from the first to the last.
        stem_channels: of the 3x3 convolution in front.
        last_channels: of the 1x1 convolution behind.
        num_classes: width of the output.
        in_channels: channels of the image.
        dropout: in front of the head.
        stochastic_depth: probability to drop a block's branch; it grows evenly from 0 in the first block to this past the last.
        stem_stride: 2, or 1 for images of 32 pixels.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: no stages, a number that is not positive, a probability outside [0, 1).
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        stem_channels: int,
        last_channels: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        stochastic_depth: float = 0.2,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        if not stages or min(stage.blocks for stage in stages) < 1:
            raise ValueError(f"stages must name at least one stage, each of at least 1 block, got {stages}")
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
        self.stem = _conv_norm_act(nn.Conv2d(in_channels, stem_channels, 3, stem_stride, padding=1, bias=False))
        self.stages = nn.Sequential()
        channels, total, done = stem_channels, sum(stage.blocks for stage in stages), 0
        for stage in stages:
            blocks = nn.Sequential()
            for j in range(stage.blocks):
                block = FusedMBConv if stage.fused else MBConv
                blocks.append(block(channels, stage, stage.stride if j == 0 else 1, stochastic_depth * done / total))
                channels, done = stage.channels, done + 1
            self.stages.append(blocks)
        self.last = _conv_norm_act(nn.Conv2d(channels, last_channels, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(last_channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' code does. A depthwise filter's fan is its own: torch's would make it too small by sqrt(C)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)
        nn.init.uniform_(self.head.weight, -(self.head.out_features**-0.5), self.head.out_features**-0.5)

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over space: (B, in_channels, H, W) -> (B, last_channels, H / 32, W / 32), rounded up."""
        return self.last(self.stages(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, last_channels)
        return self.head(self.dropout(x))  # (B, num_classes)


class _SiLU(nn.Module):
    """x * sigmoid(x): over its input in evaluation. In training autograd would have to copy that first."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())


def _conv_norm_act(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), _SiLU())


def _channels(wanted: float) -> int:
    """The nearest multiple of 8, but not less than 9 tenths of what is wanted."""
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest


def _with_norms(net: EfficientNet, eps: float, momentum: float = 0.1) -> EfficientNet:
    """With the settings that the published weights were trained with."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = eps, momentum
    return net


def _b(number: int, num_classes: int, in_channels: int, dropout: float, stochastic_depth: float) -> EfficientNet:
    width, depth, _ = COEFFICIENTS[number]
    stages = scaled(B0, width, depth)
    stem, last = _channels(32 * width), 4 * stages[-1].channels
    net = EfficientNet(stages, stem, last, num_classes, in_channels, dropout, stochastic_depth)
    return _with_norms(net, 1e-3, 0.01) if number >= 5 else net


def _v2(
    rows: Sequence[tuple[int, int, int, int]], num_classes: int, in_channels: int, dropout: float, stochastic_depth: float
) -> EfficientNet:
    """Three fused stages, then MBConv, all 3x3; a row is expansion, stride, channels, blocks."""
    stages = [Stage(e, 3, s, c, n, fused=i < 3) for i, (e, s, c, n) in enumerate(rows)]
    net = EfficientNet(stages, stages[0].channels, 1280, num_classes, in_channels, dropout, stochastic_depth)
    return _with_norms(net, 1e-3)


def efficientnet_b0(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> EfficientNet:
    """5,288,548 parameters (paper: 5.3 M); ImageNet in the paper: 77.1 % top-1 at 224 pixels (table 2)."""
    return _b(0, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b1(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> EfficientNet:
    """7,794,184 parameters (paper: 7.8 M); ImageNet in the paper: 79.1 % top-1 at 240 pixels (table 2)."""
    return _b(1, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b2(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.3, stochastic_depth: float = 0.2
) -> EfficientNet:
    """9,109,994 parameters (paper: 9.2 M); ImageNet in the paper: 80.1 % top-1 at 260 pixels (table 2)."""
    return _b(2, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b3(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.3, stochastic_depth: float = 0.2
) -> EfficientNet:
    """12,233,232 parameters (paper: 12 M); ImageNet in the paper: 81.6 % top-1 at 300 pixels (table 2)."""
    return _b(3, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b4(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.4, stochastic_depth: float = 0.2
) -> EfficientNet:
    """19,341,616 parameters (paper: 19 M); ImageNet in the paper: 82.9 % top-1 at 380 pixels (table 2)."""
    return _b(4, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b5(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.4, stochastic_depth: float = 0.2
) -> EfficientNet:
    """30,389,784 parameters (paper: 30 M); ImageNet in the paper: 83.6 % top-1 at 456 pixels (table 2)."""
    return _b(5, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b6(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, stochastic_depth: float = 0.2
) -> EfficientNet:
    """43,040,704 parameters (paper: 43 M); ImageNet in the paper: 84.0 % top-1 at 528 pixels (table 2)."""
    return _b(6, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b7(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, stochastic_depth: float = 0.2
) -> EfficientNet:
    """66,347,960 parameters (paper: 66 M); ImageNet in the paper: 84.3 % top-1 at 600 pixels (table 2)."""
    return _b(7, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_b0_cifar(
    num_classes: int = 10, in_channels: int = 3, dropout: float = 0.2, stochastic_depth: float = 0.2, phi: float = 0.0
) -> EfficientNet:
    """4,020,358 parameters; B0 with a stem of stride 1, the usual variant for 32x32 images. Not in the paper.

    With phi below 0 it is scaled down, by `compound(phi)`.
    """
    width, depth, _ = compound(phi)
    stages = scaled(B0, width, depth)
    stem, last = _channels(32 * width), 4 * stages[-1].channels
    return EfficientNet(stages, stem, last, num_classes, in_channels, dropout, stochastic_depth, stem_stride=1)


def efficientnet_v2_s(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> EfficientNet:
    """21,458,488 parameters (paper: 22 M); ImageNet in the paper: 83.9 % top-1 (V2, table 7)."""
    rows = [(1, 1, 24, 2), (4, 2, 48, 4), (4, 2, 64, 4), (4, 2, 128, 6), (6, 1, 160, 9), (6, 2, 256, 15)]
    return _v2(rows, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_v2_m(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.3, stochastic_depth: float = 0.2
) -> EfficientNet:
    """54,139,356 parameters (paper: 54 M); ImageNet in the paper: 85.1 % top-1 (V2, table 7)."""
    rows = [(1, 1, 24, 3), (4, 2, 48, 5), (4, 2, 80, 5), (4, 2, 160, 7), (6, 1, 176, 14), (6, 2, 304, 18), (6, 1, 512, 5)]
    return _v2(rows, num_classes, in_channels, dropout, stochastic_depth)


def efficientnet_v2_l(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.4, stochastic_depth: float = 0.2
) -> EfficientNet:
    """118,515,272 parameters (paper: 120 M); ImageNet in the paper: 85.7 % top-1 (V2, table 7)."""
    rows = [(1, 1, 32, 4), (4, 2, 64, 7), (4, 2, 96, 7), (4, 2, 192, 10), (6, 1, 224, 19), (6, 2, 384, 25), (6, 1, 640, 7)]
    return _v2(rows, num_classes, in_channels, dropout, stochastic_depth)
