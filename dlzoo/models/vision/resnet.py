"""Residual networks: for small images (CIFAR) and for large ones (ImageNet).

Past some depth a plain stack of convolutions fits even its training data worse. A residual block learns a correction to its
input, relu(x + f(x)), so that "change nothing" is the easy answer: f = 0. Depth then costs nothing to try; 152 layers train.
Where a block changes the shape, its shortcut must change it too: by zero padding (option A) or a 1x1 convolution (option B).

Source: He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385:
    sections 3.3-3.4 and table 1 (ImageNet), section 4.2 (CIFAR-10).
Differs from it: the stride of a bottleneck is on its 3x3 convolution, not on the first 1x1, as in torchvision (Goyal et al.
    2017, https://arxiv.org/abs/1706.02677, section 5.1); the zero channels of option A stand in equal parts before and behind
    the image's, as in the published checkpoints (the paper does not say where); `resnet18_cifar` is not in the paper.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "NoShortcut",
    "ResNet",
    "ZeroPadShortcut",
    "resnet18",
    "resnet18_cifar",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
]


class ZeroPadShortcut(nn.Module):
    """Option A: every stride-th pixel, and channels of zeros in equal parts on both sides. It has no parameters.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, not fewer.
        stride: 2 halves height and width.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), rounded up.

    Raises:
        ValueError: out_channels is below in_channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"out_channels must be at least in_channels, {in_channels}, got {out_channels}")
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.behind = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        # The average over one pixel is that pixel. Unlike a slice, whose gradient is always laid out as NCHW, it keeps
        # channels_last in the backward pass: the whole training step of resnet20 takes 4 to 7 % less time on a CPU.
        x = F.avg_pool2d(x, 1, self.stride)  # (B, in_channels, H / stride, W / stride)
        return F.pad(x, (0, 0, 0, 0, self.before, self.behind))  # (B, out_channels, H / stride, W / stride)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, before={self.before}, behind={self.behind}"


class NoShortcut(nn.Module):
    """Nothing to add: the plain networks that the paper compares with (section 3.3, and figure 6 for CIFAR)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: relu(shortcut(x) + f(x)).

    Args:
        in_channels: channels of the input.
        width: channels of the convolutions and, this block's `expansion` being 1, of the output.
        stride: step of the first convolution; 2 halves height and width.
        shortcut: where the shape changes, "pad" (option A, no parameters) or "project" (option B, 1x1 convolution and norm);
            "none" leaves out every shortcut.

    Shape:
        (B, in_channels, H, W) -> (B, width, H / stride, W / stride), rounded up.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, shortcut: Literal["pad", "project", "none"] = "project"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        # A norm's gradient does not need the norm's output: the relu and the sum may overwrite it.
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1x1 down to `width` channels, 3x3, 1x1 up to 4 * `width`, beside a shortcut: relu(shortcut(x) + f(x)).

    Args:
        in_channels: channels of the input.
        width: channels of the 3x3 convolution; the output has `expansion` = 4 times as many.
        stride: step of the 3x3 convolution; 2 halves height and width.
        shortcut: where the shape changes, "pad" (option A, no parameters) or "project" (option B, 1x1 convolution and norm);
            "none" leaves out every shortcut.

    Shape:
        (B, in_channels, H, W) -> (B, 4 * width, H / stride, W / stride), rounded up.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, shortcut: Literal["pad", "project", "none"] = "project"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(self.expansion * width)
        self.shortcut = _shortcut(in_channels, self.expansion * width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        y = self.norm3(self.conv3(y))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """A stem, stages of residual blocks, an average over space, a linear head.

    Every stage but the first halves height and width and doubles the channels.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        blocks_per_stage: the number of blocks of each stage.
        width: `width` of the blocks of the first stage, and channels of the stem.
        num_classes: width of the output.
        in_channels: channels of the image.
        stem: "large" (7x7 of stride 2, then max pooling: a quarter of the size) or "small" (3x3, the size stays).
        shortcut: where a block changes the shape, "project" (option B of the paper) or "pad" (option A, no parameters); "none"
            leaves out every shortcut, which makes it the plain network.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: a stage without blocks, a width or a number that is not positive, an unknown stem or shortcut.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks_per_stage: Sequence[int],
        width: int = 64,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: Literal["large", "small"] = "large",
        shortcut: Literal["pad", "project", "none"] = "project",
    ) -> None:
        super().__init__()
        if not blocks_per_stage or min(blocks_per_stage) < 1:
            raise ValueError(f"blocks_per_stage must name at least one stage, each of at least 1 block, got {blocks_per_stage}")
        for name, value in (("width", width), ("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.stem = _stem(in_channels, width, stem)
        self.stages = nn.Sequential()
        channels = width
        for i, blocks in enumerate(blocks_per_stage):
            stage = nn.Sequential()
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(block(channels, width * 2**i, stride, shortcut))
                channels = block.expansion * width * 2**i
            self.stages.append(stage)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over space: (B, in_channels, H, W) -> (B, C, H / s, W / s), rounded up.

        s is 4 with three stages and the small stem, 8 with four stages and the small stem, 32 with four and the large stem.
        """
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, C)
        return self.head(x)  # (B, num_classes)


def _stem(in_channels: int, width: int, kind: str) -> nn.Sequential:
    if kind not in ("small", "large"):
        raise ValueError(f"stem must be 'small' or 'large', got {kind!r}")
    large = kind == "large"
    conv = nn.Conv2d(in_channels, width, 7 if large else 3, 2 if large else 1, padding=3 if large else 1, bias=False)
    stem = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    return stem.append(nn.MaxPool2d(3, 2, padding=1)) if large else stem


def _shortcut(in_channels: int, out_channels: int, stride: int, kind: str) -> nn.Module:
    if kind not in ("pad", "project", "none"):
        raise ValueError(f"shortcut must be 'pad', 'project' or 'none', got {kind!r}")
    if kind == "none":
        return NoShortcut()
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "pad":
        return ZeroPadShortcut(in_channels, out_channels, stride)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _cifar(blocks: int, num_classes: int, in_channels: int, shortcut: str) -> ResNet:
    """The family of section 4.2: three stages of `blocks` blocks, 16, 32 and 64 channels; 6 * blocks + 2 layers."""
    return ResNet(BasicBlock, (blocks,) * 3, 16, num_classes, in_channels, stem="small", shortcut=shortcut)


def resnet20(num_classes: int = 10, in_channels: int = 3, shortcut: Literal["pad", "project", "none"] = "pad") -> ResNet:
    """269,722 parameters (paper: 0.27 M); CIFAR-10 in the paper: 91.25 % (table 6)."""
    return _cifar(3, num_classes, in_channels, shortcut)


def resnet32(num_classes: int = 10, in_channels: int = 3, shortcut: Literal["pad", "project", "none"] = "pad") -> ResNet:
    """464,154 parameters (paper: 0.46 M); CIFAR-10 in the paper: 92.49 % (table 6)."""
    return _cifar(5, num_classes, in_channels, shortcut)


def resnet44(num_classes: int = 10, in_channels: int = 3, shortcut: Literal["pad", "project", "none"] = "pad") -> ResNet:
    """658,586 parameters (paper: 0.66 M); CIFAR-10 in the paper: 92.83 % (table 6)."""
    return _cifar(7, num_classes, in_channels, shortcut)


def resnet56(num_classes: int = 10, in_channels: int = 3, shortcut: Literal["pad", "project", "none"] = "pad") -> ResNet:
    """853,018 parameters (paper: 0.85 M); CIFAR-10 in the paper: 93.03 % (table 6)."""
    return _cifar(9, num_classes, in_channels, shortcut)


def resnet110(num_classes: int = 10, in_channels: int = 3, shortcut: Literal["pad", "project", "none"] = "pad") -> ResNet:
    """1,727,962 parameters (paper: 1.7 M); CIFAR-10 in the paper: 93.57 % best, 93.39 +- 0.16 % of five (table 6)."""
    return _cifar(18, num_classes, in_channels, shortcut)


def resnet18_cifar(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """11,173,962 parameters; ResNet-18 with the small stem, the usual variant for 32x32 images. Not in the paper."""
    return ResNet(BasicBlock, (2, 2, 2, 2), 64, num_classes, in_channels, stem="small")


def resnet18(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """11,689,512 parameters; ImageNet in the paper: 27.88 % top-1 error, ten crops (table 2)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), 64, num_classes, in_channels)


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """21,797,672 parameters; ImageNet in the paper: 24.52 % top-1 error, option B, ten crops (table 3)."""
    return ResNet(BasicBlock, (3, 4, 6, 3), 64, num_classes, in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """25,557,032 parameters; ImageNet in the paper: 22.85 % top-1 error, ten crops (table 3)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), 64, num_classes, in_channels)


def resnet101(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """44,549,160 parameters; ImageNet in the paper: 21.75 % top-1 error, ten crops (table 3)."""
    return ResNet(Bottleneck, (3, 4, 23, 3), 64, num_classes, in_channels)


def resnet152(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """60,192,808 parameters; ImageNet in the paper: 21.43 % top-1 error, ten crops (table 3)."""
    return ResNet(Bottleneck, (3, 8, 36, 3), 64, num_classes, in_channels)
