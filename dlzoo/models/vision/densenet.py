"""Densely connected networks: every layer of a block reads the outputs of all layers before it.

A residual network adds what a layer finds to what came before; this one lays it beside (concatenation), so that nothing is
overwritten and a layer need find only a few new channels, the growth k. The gradient reaches every layer by a path of its own.
Between two blocks a transition halves the channels and the image.
All those concatenations take memory that grows with the square of the depth. `memory_efficient` keeps only the k new channels
of each layer and computes the rest again in the backward pass: the memory grows with the depth, for a quarter more time.

Source: Huang, Liu, van der Maaten, Weinberger 2016, Densely Connected Convolutional Networks, https://arxiv.org/abs/1608.06993:
    section 3, "Implementation details" for CIFAR, table 1 for ImageNet. Bottlenecks of 4 k channels and halving transitions
    are its DenseNet-BC; all its ImageNet networks are of this kind.
    Pleiss et al. 2017, Memory-Efficient Implementation of DenseNets, https://arxiv.org/abs/1707.06990: `memory_efficient`.
Differs from it: a transition averages before its 1x1 convolution, not after. The two commute, both being linear and the
    convolution having no bias, and a quarter of the pixels is left to convolve.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "DenseBlock",
    "DenseLayer",
    "DenseNet",
    "Transition",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet_bc40",
    "densenet_bc100",
    "densenet_bc190",
    "densenet_bc250",
]


class DenseLayer(nn.Module):
    """norm, relu, 1x1 down to 4 * growth channels; norm, relu, 3x3 down to growth.

    Args:
        in_channels: channels of all the inputs together.
        growth: channels of the output, the paper's k.
        dropout: share of the outputs that each training step sets to 0.

    Shape:
        (B, C_0, H, W), (B, C_1, H, W), ... with sum C_i = in_channels -> (B, growth, H, W).
    """

    def __init__(self, in_channels: int, growth: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.dropout = dropout

    def forward(self, *features: Tensor) -> Tensor:
        x = features[0] if len(features) == 1 else torch.cat(features, 1)  # (B, in_channels, H, W)
        # A norm's gradient does not need the norm's output: the relu may overwrite it.
        x = self.conv1(F.relu(self.norm1(x), inplace=True))  # (B, 4 * growth, H, W)
        x = self.conv2(F.relu(self.norm2(x), inplace=True))  # (B, growth, H, W)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class DenseBlock(nn.Module):
    """Layers, each of which reads the input and the outputs of all layers before it.

    Args:
        layers: their number.
        in_channels: channels of the input.
        growth: channels that each layer adds.
        dropout: of each layer.
        memory_efficient: keep the layers' outputs alone and compute what is between them again in the backward pass.

    Shape:
        (B, in_channels, H, W) -> (B, in_channels + layers * growth, H, W).
    """

    def __init__(
        self, layers: int, in_channels: int, growth: int, dropout: float = 0.0, memory_efficient: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(in_channels + i * growth, growth, dropout) for i in range(layers))
        self.memory_efficient = memory_efficient

    def forward(self, x: Tensor) -> Tensor:
        if self.memory_efficient and self.training:
            features = [x]
            for layer in self.layers:
                contexts = partial(_contexts, layer)
                features.append(checkpoint(layer, *features, use_reentrant=False, context_fn=contexts))
            return torch.cat(features, 1)
        # One tensor that grows, not a list: its gradient is one sum a layer, where a list's takes one for each pair of layers.
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return x


class Transition(nn.Module):
    """norm, relu, average of 2x2 pixels, 1x1 convolution.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2), rounded down.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(self.norm(x), inplace=True), 2)  # (B, in_channels, H / 2, W / 2)
        return self.conv(x)  # (B, out_channels, H / 2, W / 2)


class DenseNet(nn.Module):
    """A stem of 2 * growth channels, dense blocks with transitions between them, norm, relu, average over space, linear head.

    Args:
        layers_per_block: the number of layers of each block.
        growth: channels that each layer adds, the paper's k.
        num_classes: width of the output.
        in_channels: channels of the image.
        stem: "large" (7x7 of stride 2, norm, relu, max pooling: a quarter of the size) or "small" (3x3 alone, the size stays).
        dropout: share of each layer's outputs that a training step sets to 0; the paper's 0.2 for data without augmentation.
        memory_efficient: about half the memory of a training step, for a quarter more time; the numbers stay the same.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: a block without layers, a number that is not positive, an unknown stem, dropout outside [0, 1).
    """

    def __init__(
        self,
        layers_per_block: Sequence[int],
        growth: int = 32,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: Literal["large", "small"] = "large",
        dropout: float = 0.0,
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        if not layers_per_block or min(layers_per_block) < 1:
            raise ValueError(f"layers_per_block must name at least one block, each of at least 1 layer, got {layers_per_block}")
        for name, value in (("growth", growth), ("num_classes", num_classes), ("in_channels", in_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        channels = 2 * growth
        self.stem = _stem(in_channels, channels, stem)
        self.stages = nn.Sequential()  # block, transition, block, ... block
        for i, layers in enumerate(layers_per_block):
            if i > 0:
                self.stages.append(Transition(channels, channels // 2))
                channels //= 2
            self.stages.append(DenseBlock(layers, channels, growth, dropout, memory_efficient))
            channels += layers * growth
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor) -> Tensor:
        """The map before the average over space: (B, in_channels, H, W) -> (B, C, H / s, W / s), rounded down.

        s is 32 with four blocks and the large stem, 4 with three blocks and the small one.
        """
        return F.relu(self.norm(self.stages(self.stem(x))), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))  # (B, num_classes)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of a checkpoint's first pass, which is as ever, and of its second: the norms would take in every batch twice."""
    return nullcontext(), _statistics_kept(module)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    # The norms still get them, for autograd must find the same tensors as in the first pass; a momentum of 0 changes nothing.
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def _stem(in_channels: int, channels: int, kind: str) -> nn.Sequential:
    if kind not in ("small", "large"):
        raise ValueError(f"stem must be 'small' or 'large', got {kind!r}")
    if kind == "small":
        return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
    conv = nn.Conv2d(in_channels, channels, 7, 2, padding=3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))


def _cifar(depth: int, growth: int, num_classes: int, in_channels: int, dropout: float, memory_efficient: bool) -> DenseNet:
    """DenseNet-BC of `depth` layers: a stem, two transitions and a head; the rest in three equal blocks of two-layer units."""
    layers = (depth - 4) // 6
    return DenseNet((layers,) * 3, growth, num_classes, in_channels, "small", dropout, memory_efficient)


def densenet_bc40(
    num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0, memory_efficient: bool = False
) -> DenseNet:
    """L = 40, k = 12: 176,122 parameters; the usual small variant. The paper's network of this depth is no DenseNet-BC."""
    return _cifar(40, 12, num_classes, in_channels, dropout, memory_efficient)


def densenet_bc100(
    num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0, memory_efficient: bool = False
) -> DenseNet:
    """L = 100, k = 12: 769,162 parameters (paper: 0.8 M); CIFAR-10 in the paper: 4.51 % error (table 2, "C10+")."""
    return _cifar(100, 12, num_classes, in_channels, dropout, memory_efficient)


def densenet_bc250(
    num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0, memory_efficient: bool = False
) -> DenseNet:
    """L = 250, k = 24: 15,324,406 parameters (paper: 15.3 M); CIFAR-10 in the paper: 3.62 % error (table 2, "C10+")."""
    return _cifar(250, 24, num_classes, in_channels, dropout, memory_efficient)


def densenet_bc190(
    num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0, memory_efficient: bool = False
) -> DenseNet:
    """L = 190, k = 40: 25,624,430 parameters (paper: 25.6 M); CIFAR-10 in the paper: 3.46 % error (table 2, "C10+")."""
    return _cifar(190, 40, num_classes, in_channels, dropout, memory_efficient)


def densenet121(num_classes: int = 1000, in_channels: int = 3, memory_efficient: bool = False) -> DenseNet:
    """7,978,856 parameters; ImageNet in the paper: 25.02 % top-1 error, one crop; 23.61 %, ten (table 3)."""
    return DenseNet((6, 12, 24, 16), 32, num_classes, in_channels, memory_efficient=memory_efficient)


def densenet169(num_classes: int = 1000, in_channels: int = 3, memory_efficient: bool = False) -> DenseNet:
    """14,149,480 parameters; ImageNet in the paper: 23.80 % top-1 error, one crop; 22.08 %, ten (table 3)."""
    return DenseNet((6, 12, 32, 32), 32, num_classes, in_channels, memory_efficient=memory_efficient)


def densenet201(num_classes: int = 1000, in_channels: int = 3, memory_efficient: bool = False) -> DenseNet:
    """20,013,928 parameters; ImageNet in the paper: 22.58 % top-1 error, one crop; 21.46 %, ten (table 3)."""
    return DenseNet((6, 12, 48, 32), 32, num_classes, in_channels, memory_efficient=memory_efficient)


def densenet161(num_classes: int = 1000, in_channels: int = 3, memory_efficient: bool = False) -> DenseNet:
    """28,681,000 parameters, k = 48; ImageNet: 22.86 % top-1 error, one crop (torchvision; not in the paper's last version)."""
    return DenseNet((6, 12, 36, 24), 48, num_classes, in_channels, memory_efficient=memory_efficient)
