"""U-Net: a label for each pixel, from what is there (deep, coarse maps) and where it is (shallow, fine ones).

A contracting path halves the size and doubles the channels, again and again, as a classifier does. An expanding path goes
back up the same stairs; on each step it is given the map that the way down had at this size, so that outlines come out sharp.
No part knows the size of the image: a small crop trains it, a large picture is segmented whole.

Source: Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597, section 2 and figure 1.
Differs from it: convolutions are padded, so that the answer is as large as the image (572 pixels give 388 in the paper, and
    borders are mirrored); batch norm behind each convolution, which the paper trains without, in place of its dropout.

Shapes: B batch, C channels, H height, W width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DoubleConv", "UNet", "Up", "unet_seg"]


class DoubleConv(nn.Sequential):
    """Twice: a 3x3 convolution, batch norm, relu.

    Args:
        in_channels: of the input.
        out_channels: of both convolutions.
        norm: False leaves the norms out, and gives the convolutions biases.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, norm: bool = True) -> None:
        super().__init__()
        for channels in (in_channels, out_channels):
            self.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=not norm))
            if norm:
                self.append(nn.BatchNorm2d(out_channels))
            self.append(nn.ReLU(inplace=True))


class Up(nn.Module):
    """One step up: twice the size and half the channels, the map from the way down beside it, two convolutions.

    Args:
        in_channels: of the map below; the output has half as many.
        norm: of the convolutions.

    Shape:
        (B, in_channels, H // 2, W // 2) and (B, in_channels / 2, H, W) -> (B, in_channels / 2, H, W).
    """

    def __init__(self, in_channels: int, norm: bool = True) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
        self.convs = DoubleConv(in_channels, in_channels // 2, norm)

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        x = self.grow(below)  # (B, C / 2, H or H - 1, W or W - 1): pooling rounds odd sizes down
        x = F.pad(x, (0, beside.shape[3] - x.shape[3], 0, beside.shape[2] - x.shape[2]))
        return self.convs(torch.cat((beside, x), 1))


class UNet(nn.Module):
    """The contracting path, the expanding path, and a 1x1 convolution.

    Args:
        num_classes: channels of the output.
        in_channels: of the image.
        width: channels at full size; each step down doubles them.
        depth: steps down, and up again.
        norm: batch norm behind each convolution; the paper has none.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes, H, W), logits, with H and W at least 2^depth.

    Raises:
        ValueError: a number that is not positive, or an image that is too small to go down so far.
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 1, width: int = 64, depth: int = 4, norm: bool = True) -> None:
        super().__init__()
        named = {"num_classes": num_classes, "in_channels": in_channels, "width": width, "depth": depth}
        for name, value in named.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.stem = DoubleConv(in_channels, width, norm)
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), DoubleConv(width * 2**i, width * 2 ** (i + 1), norm)) for i in range(depth)
        )
        self.up = nn.ModuleList(Up(width * 2 ** (i + 1), norm) for i in reversed(range(depth)))
        self.head = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.head:  # section 3: std sqrt(2 / N), N incoming values
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 2 ** len(self.down):
            raise ValueError(f"the image must be at least {2 ** len(self.down)} high and wide, got {tuple(x.shape[2:])}")
        maps = [self.stem(x)]  # (B, C * 2^i, H / 2^i, W / 2^i), rounded down
        for step in self.down:
            maps.append(step(maps[-1]))
        x = maps.pop()
        for step in self.up:
            x = step(x, maps.pop())
        return self.head(x)  # (B, num_classes, H, W)


def unet_seg(num_classes: int = 2, in_channels: int = 1, width: int = 64, depth: int = 4, norm: bool = True) -> UNet:
    """31,036,546 parameters, 31,030,658 without norms as in the paper; ISBI 2012 there: warping error 0.000353 (table 1)."""
    return UNet(num_classes, in_channels, width, depth, norm)
