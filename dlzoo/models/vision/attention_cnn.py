"""Attention inside a convolutional network: three ways to let a residual block look further than its 3x3 window.

Squeeze-excitation weighs channels by what the whole map holds. CBAM weighs channels, then places. An attention-augmented
convolution has some of its output channels computed by self-attention over all places, with positions known only relative to
each other. Each is a block that takes a map and gives a map of the same size, so it drops into the residual network for small
images.

Source: Hu, Shen, Sun 2017, Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, sections 3 and 4;
    Woo, Park, Lee, Kweon 2018, CBAM, https://arxiv.org/abs/1807.06521, section 3;
    Bello, Zoph, Vaswani, Shlens, Le 2019, Attention Augmented Convolutional Networks, https://arxiv.org/abs/1904.09925,
    section 3;
    the network: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2, with shortcuts of option A.
Differs from it: the widths of the stages are chosen so that each variant has the parameters of ResNet-20 to within 0.2 %; at
    least 4 squeezed channels, since a sixteenth of 16 is one; the places' gate of CBAM has a batch norm, as its authors' code
    has. Of the augmented network the second convolution of a block is augmented, which has no stride, in the stages of 16x16
    and 8x8 pixels, with 2 heads; the convolutions have no biases, as everywhere in a ResNet.

Shapes: B batch, C channels, H height, W width, N heads, D channels of a head.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.squeeze_excite import SqueezeExcite

__all__ = [
    "CBAM",
    "AttentionResNet",
    "AugmentedConv",
    "ChannelGate",
    "PlaceGate",
    "aa_resnet20",
    "cbam_resnet20",
    "se_resnet20",
]


class ChannelGate(nn.Module):
    """CBAM's first half: gates of the channels, from the average and from the largest value of each.

    Args:
        channels: of the map.
        squeezed: width between the two dense layers, which both descriptions share.

    Shape:
        (B, channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = (self.excite(F.relu(self.squeeze(each))) for each in (x.mean((2, 3)), x.amax((2, 3))))  # (B, C) each
        return x * (mean + largest).sigmoid()[:, :, None, None]


class PlaceGate(nn.Module):
    """CBAM's second half: gates of the places, by a 7x7 convolution over the mean and the largest value of the channels.

    Shape:
        (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        described = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)  # (B, 2, H, W)
        return x * self.norm(self.conv(described)).sigmoid()


class CBAM(nn.Sequential):
    """First what, then where: the two gates in this order, which the paper finds best.

    Args:
        channels: of the map.
        squeezed: width between the dense layers of the channels' gate.

    Shape:
        (B, channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__(ChannelGate(channels, squeezed), PlaceGate())


class AugmentedConv(nn.Module):
    """A 3x3 convolution, some of whose output channels come from self-attention over all places of the map.

    How much place i listens to place j is q_i . (k_j + r_rows[row_j - row_i] + r_columns[column_j - column_i]) / sqrt(D): the
    vectors r are learned, one for each distance and shared by the heads, so that a shifted image gives shifted answers.

    Args:
        in_channels: of the input.
        out_channels: of the output, the attention's and the convolution's together.
        keys: channels of the queries and of the keys, of all heads together.
        values: channels that the attention gives; 0 leaves a plain convolution.
        heads: each attends with its own share of keys and values.
        size: the largest height and width of the map, which says how many distances there are.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W), with H and W at most `size`.

    Raises:
        ValueError: heads do not divide keys and values, values are not below out_channels, or the map is larger than `size`.
    """

    def __init__(self, in_channels: int, out_channels: int, keys: int, values: int, heads: int, size: int) -> None:
        super().__init__()
        if heads < 1 or keys % heads or values % heads:
            raise ValueError(f"heads must divide keys and values, got {heads} heads for {keys} keys and {values} values")
        if not 0 <= values < out_channels or (values and keys < heads):
            raise ValueError(f"values must be in [0, {out_channels}) and have keys, got {values} values and {keys} keys")
        self.keys, self.values, self.heads, self.size = keys, values, heads, size
        self.conv = nn.Conv2d(in_channels, out_channels - values, 3, padding=1, bias=False)
        if values:
            self.qkv = nn.Conv2d(in_channels, 2 * keys + values, 1, bias=False)
            self.mix = nn.Conv2d(values, values, 1, bias=False)
            self.rows = nn.Parameter(torch.randn(2 * size - 1, keys // heads) * (keys // heads) ** -0.5)
            self.columns = nn.Parameter(torch.randn(2 * size - 1, keys // heads) * (keys // heads) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.conv(x), self.mix(self._attend(x))), 1) if self.values else self.conv(x)

    def _attend(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, values, H, W)."""
        if max(x.shape[2:]) > self.size:
            raise ValueError(f"the map must be at most {self.size} high and wide, got {tuple(x.shape[2:])}")
        height, width = x.shape[2:]
        parts = self.qkv(x).split((self.keys, self.keys, self.values), 1)
        q, k, v = (part.unflatten(1, (self.heads, -1)) for part in parts)  # (B, N, D, H, W) each
        q = q * (self.keys // self.heads) ** -0.5
        # What a distance adds is one more inner product: of the query's answer to each row and column with a vector that says
        # which row and column the key is in. One product for both takes two thirds of the time of adding them up after it.
        by_row = torch.einsum("bndhw,hyd->bnhwy", q, self._distances(self.rows, height)).flatten(2, 3)  # (B, N, H * W, H)
        by_column = torch.einsum("bndhw,wxd->bnhwx", q, self._distances(self.columns, width)).flatten(2, 3)
        row = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, 1)  # (H, H * W)
        column = torch.eye(width, dtype=k.dtype, device=k.device).repeat(1, height)
        where = torch.cat((row, column)).expand(*k.shape[:2], -1, -1)  # (B, N, H + W, H * W)
        asked = torch.cat((q.flatten(3).mT, by_row, by_column), 3)  # (B, N, H * W, D + H + W)
        logits = asked @ torch.cat((k.flatten(3), where), 2)  # (B, N, H * W, H * W), the asking place first
        out = v.flatten(3) @ logits.softmax(-1).mT  # (B, N, D, H * W)
        return out.flatten(1, 2).unflatten(2, (height, width))

    def _distances(self, table: Tensor, extent: int) -> Tensor:
        """The vector for each pair of places on a line, from the first to the second: (extent, extent, D)."""
        place = torch.arange(extent, device=table.device)
        return table[place - place[:, None] + self.size - 1]

    def extra_repr(self) -> str:
        return f"keys={self.keys}, values={self.values}, heads={self.heads}, size={self.size}"


class Block(nn.Module):
    """A residual block with attention in its second half: relu(shortcut(x) + f(x)).

    Args:
        in_channels: of the input.
        width: channels of the output, not fewer.
        stride: of the first convolution.
        attention: "se" and "cbam" gate what the second norm gives, "aa" augments the second convolution.
        size: the largest height and width of the output, for "aa".

    Shape:
        (B, in_channels, H, W) -> (B, width, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, width: int, stride: int, attention: str, size: int) -> None:
        super().__init__()
        squeezed = max(width // 16, 4)
        values = 2 * round(width / 8)  # a quarter, in two heads
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = (
            AugmentedConv(width, width, 2 * values, values, heads=2, size=size)
            if attention == "aa"
            else nn.Conv2d(width, width, 3, padding=1, bias=False)
        )
        self.norm2 = nn.BatchNorm2d(width)
        gates = {"se": SqueezeExcite, "cbam": CBAM}
        self.gate = gates[attention](width, squeezed) if attention in gates else nn.Identity()
        self.stride, self.before = stride, (width - in_channels) // 2
        self.behind = width - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.gate(self.norm2(self.conv2(y)))
        # option A: every stride-th pixel, and channels of zeros in equal parts on both sides
        shortcut = F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, self.before, self.behind))
        return F.relu(y + shortcut)


class AttentionResNet(nn.Module):
    """The residual network for small images, with attention in its blocks.

    Args:
        attention: "se", "cbam", "aa", or "none", which is the plain residual network.
        widths: channels of each stage; every stage but the first halves height and width.
        blocks: of each stage.
        num_classes: width of the output.
        in_channels: channels of the image.
        image_size: the largest height and width of the image; "aa" has a parameter for each distance.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: an unknown attention, a number that is not positive, or widths that shrink.
    """

    def __init__(
        self,
        attention: Literal["none", "se", "cbam", "aa"],
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 3,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
    ) -> None:
        super().__init__()
        if attention not in ("none", "se", "cbam", "aa"):
            raise ValueError(f"attention must be 'none', 'se', 'cbam' or 'aa', got {attention!r}")
        if not widths or list(widths) != sorted(widths) or widths[0] < 4:
            raise ValueError(f"widths must be at least 4 and not shrink, got {tuple(widths)}")
        for name, value in (("blocks", blocks), ("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        conv = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.stages = nn.Sequential()
        channels, size = widths[0], image_size
        for i, width in enumerate(widths):
            size = -(-size // 2) if i else size
            # at full size the attention of an image would be a matrix of 1024 x 1024 for each head
            kind = "none" if attention == "aa" and i == 0 else attention
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(Block(channels, width, 2 if i > 0 and j == 0 else 1, kind, size))
                channels = width
            self.stages.append(stage)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, SqueezeExcite):  # the averages are near 0: a bias would decide which units ever wake
                nn.init.zeros_(module.squeeze.bias)

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over space: (B, in_channels, H, W) -> (B, C, H / 4, W / 4), rounded up."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))  # (B, C) -> (B, num_classes)


def se_resnet20(num_classes: int = 10, in_channels: int = 3) -> AttentionResNet:
    """269,188 parameters (ResNet-20: 269,722): squeeze-excitation, and 31 channels for 32 in the second stage."""
    return AttentionResNet("se", (16, 31, 64), 3, num_classes, in_channels)


def cbam_resnet20(num_classes: int = 10, in_channels: int = 3) -> AttentionResNet:
    """269,719 parameters (ResNet-20: 269,722): CBAM, and 31 channels for 32 in the second stage."""
    return AttentionResNet("cbam", (16, 31, 64), 3, num_classes, in_channels)


def aa_resnet20(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> AttentionResNet:
    """270,186 parameters (ResNet-20: 269,722): attention-augmented, and 66 channels for 64 in the third stage."""
    return AttentionResNet("aa", (16, 32, 66), 3, num_classes, in_channels, image_size)
