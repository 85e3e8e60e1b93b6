"""Very deep convolutional networks on raw waveforms: M3, M5, M11, M18 and M34-res.

No spectrogram: the first convolution sees 80 samples, a hundredth of a second at 8 kHz, and so learns band-pass filters of its
own. With the pooling behind it the signal is already sixteen times shorter; from there on convolutions are 3 wide, with more
channels after each further pooling by four. An average over time takes the place of dense layers, so that any length goes in.

Source: Dai, Dai, Qu, Li, Das 2016, Very Deep Convolutional Neural Networks for Raw Waveforms, https://arxiv.org/abs/1610.00087,
    section 2 and table 1.
Differs from it: no bias in front of a batch norm, which would take it out again.

Shapes: B batch, C channels, T samples.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvBlock", "PoolByFour", "ResidualBlock", "WaveformCNN", "m3", "m5", "m11", "m18", "m34_res"]

POOLINGS = 4  # at most: 32,000 samples are then 32 columns


class ConvBlock(nn.Module):
    """A convolution, batch norm and relu.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: of the convolution.
        stride: of the convolution; the output is as long as the input divided by it, where it divides it.

    Shape:
        (B, in_channels, T) -> (B, out_channels, T / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size - stride + 1) // 2
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class PoolByFour(nn.Module):
    """The largest of every four values; what is left at the end counts too.

    Shape:
        (B, C, T) -> (B, C, T / 4), rounded up.
    """

    def forward(self, x: Tensor) -> Tensor:
        # as a picture of one row: torch.export would fix the length at max_pool1d
        return F.max_pool2d(x.unsqueeze(2), (1, 4), ceil_mode=True).squeeze(2)


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions beside a shortcut: relu(norm(x + f(x))). Where channels double, the shortcut gives each twice.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of in_channels.

    Shape:
        (B, in_channels, T) -> (B, out_channels, T).

    Raises:
        ValueError: out_channels is no multiple of in_channels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if out_channels % in_channels:
            raise ValueError(f"out_channels must be a multiple of in_channels, {in_channels}, got {out_channels}")
        self.repeats = out_channels // in_channels
        self.block = ConvBlock(in_channels, out_channels)
        self.conv = nn.Conv1d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)
        self.sum_norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(self.block(x)))
        x = x.repeat_interleave(self.repeats, dim=1) if self.repeats > 1 else x
        return F.relu(self.sum_norm(x + y), inplace=True)


class WaveformCNN(nn.Module):
    """A wide convolution, stages of narrow ones with a pooling behind each of the first four, an average, a linear head.

    Args:
        widths: channels of each stage; the first is that of the wide convolution alone.
        blocks: number of blocks in each stage but the first.
        residual: a block is a `ResidualBlock`, otherwise a `ConvBlock`.
        num_classes: width of the output.
        in_channels: channels of the waveform.

    Shape:
        (B, in_channels, T) -> (B, num_classes), logits.

    Raises:
        ValueError: widths and blocks do not go together, or a number is not positive.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        residual: bool = False,
        num_classes: int = 10,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) + 1:
            raise ValueError(f"widths must name one stage more than blocks, got {len(widths)} and {len(blocks)}")
        for name, value in (
            ("num_classes", num_classes),
            ("in_channels", in_channels),
            ("widths", min(widths)),
            ("blocks", min(blocks, default=1)),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        block = ResidualBlock if residual else ConvBlock
        self.stages = nn.Sequential(nn.Sequential(ConvBlock(in_channels, widths[0], kernel_size=80, stride=4)))
        channels = widths[0]
        for width, count in zip(widths[1:], blocks, strict=True):
            stage = nn.Sequential()
            for _ in range(count):
                stage.append(block(channels, width))
                channels = width
            self.stages.append(stage)
        for stage in self.stages[:POOLINGS]:
            stage.append(PoolByFour())
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over time: (B, in_channels, T) -> (B, C, T / 1024), rounded up; T / 64 for M3."""
        return self.stages(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean(2)  # (B, C)
        return self.head(x)  # (B, num_classes)


def m3(num_classes: int = 10, in_channels: int = 1) -> WaveformCNN:
    """220,682 parameters (paper: 0.2 M); UrbanSound8K in the paper: 56.12 %."""
    return WaveformCNN((256, 256), (1,), False, num_classes, in_channels)


def m5(num_classes: int = 10, in_channels: int = 1) -> WaveformCNN:
    """558,090 parameters (paper: 0.5 M)."""
    return WaveformCNN((128, 128, 256, 512), (1, 1, 1), False, num_classes, in_channels)


def m11(num_classes: int = 10, in_channels: int = 1) -> WaveformCNN:
    """1,784,202 parameters (paper: 1.8 M)."""
    return WaveformCNN((64, 64, 128, 256, 512), (2, 2, 3, 2), False, num_classes, in_channels)


def m18(num_classes: int = 10, in_channels: int = 1) -> WaveformCNN:
    """3,679,882 parameters (paper: 3.7 M); UrbanSound8K in the paper: 71.68 %."""
    return WaveformCNN((64, 64, 128, 256, 512), (4, 4, 4, 4), False, num_classes, in_channels)


def m34_res(num_classes: int = 10, in_channels: int = 1) -> WaveformCNN:
    """3,978,442 parameters (paper: 4 M)."""
    return WaveformCNN((48, 48, 96, 192, 384), (3, 4, 6, 3), True, num_classes, in_channels)
