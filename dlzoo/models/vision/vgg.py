"""VGG: a plain stack of 3x3 convolutions.

Two 3x3 convolutions see as far as one of 5x5, three as far as one of 7x7, with fewer weights and a nonlinearity between them.
So depth can be had with one kind of layer: five stages, each ended by max pooling that halves the image, each but the last
twice as wide as the one before. Nine tenths of the weights of VGG-16 lie in its three linear layers.

Source: Simonyan, Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition,
    https://arxiv.org/abs/1409.1556: table 1, columns A (11), B (13), D (16) and E (19).
Differs from it: an image of another size than 224 is averaged or repeated to a map of 7x7, as in torchvision; the `_bn` forms
    have batch norm (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167) after each convolution; `vgg16_bn_cifar`,
    without hidden layers, is not in the paper either.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    *("VGG", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg16_bn_cifar", "vgg19", "vgg19_bn"),
]

SIDE = 7  # of the map that the hidden layers read: 224 / 32


class VGG(nn.Module):
    """Stages of 3x3 convolutions with max pooling, two hidden layers, a linear head.

    Args:
        convolutions: their number in each stage.
        norm: batch norm after each convolution.
        num_classes: width of the output.
        in_channels: channels of the image.
        width: channels of the first stage; they double with each stage, up to eight times as many.
        hidden: width of the two hidden layers; 0 is without them, and the map is averaged over space.
        dropout: share of the hidden outputs that each training step sets to 0.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits. H and W are at least 2 ** (number of stages).

    Raises:
        ValueError: a stage without convolutions, a number that is not positive, dropout outside [0, 1).
    """

    def __init__(
        self,
        convolutions: Sequence[int],
        norm: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not convolutions or min(convolutions) < 1:
            raise ValueError(f"convolutions must name at least one stage, each of at least 1, got {convolutions}")
        for name, value in (("num_classes", num_classes), ("in_channels", in_channels), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if hidden < 0:
            raise ValueError(f"hidden must be at least 0, got {hidden}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.layers = nn.Sequential()
        channels = in_channels
        for i, count in enumerate(convolutions):
            for _ in range(count):
                out_channels = width * min(2**i, 8)
                self.layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
                if norm:
                    self.layers.append(nn.BatchNorm2d(out_channels))
                self.layers.append(nn.ReLU(inplace=True))
                channels = out_channels
            self.layers.append(nn.MaxPool2d(2))
        self.hidden = _hidden(channels * SIDE * SIDE, hidden, dropout) if hidden else None
        self.head = nn.Linear(hidden or channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """The map before the linear layers: (B, in_channels, H, W) -> (B, C, H / s, W / s), rounded down; s is 32."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if self.hidden is None:
            return self.head(x.mean((2, 3)))  # (B, num_classes)
        if x.shape[2:] != (SIDE, SIDE):
            x = F.adaptive_avg_pool2d(x, SIDE)  # (B, C, 7, 7)
        return self.head(self.hidden(x.flatten(1)))  # (B, num_classes)


def _hidden(inputs: int, width: int, dropout: float) -> nn.Sequential:
    layers = nn.Sequential()
    for before in (inputs, width):
        layers.extend((nn.Linear(before, width), nn.ReLU(inplace=True), nn.Dropout(dropout)))
    return layers


def vgg11(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """132,863,336 parameters (paper: 133 M); ImageNet in the paper: 29.6 % top-1 error, one scale (table 3)."""
    return VGG((1, 1, 2, 2, 2), False, num_classes, in_channels, dropout=dropout)


def vgg13(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """133,047,848 parameters (paper: 133 M); ImageNet in the paper: 28.7 % top-1 error, one scale (table 3)."""
    return VGG((2, 2, 2, 2, 2), False, num_classes, in_channels, dropout=dropout)


def vgg16(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """138,357,544 parameters (paper: 138 M); ImageNet in the paper: 25.6 % top-1 error, one scale (table 3)."""
    return VGG((2, 2, 3, 3, 3), False, num_classes, in_channels, dropout=dropout)


def vgg19(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """143,667,240 parameters (paper: 144 M); ImageNet in the paper: 25.5 % top-1 error, one scale (table 3)."""
    return VGG((2, 2, 4, 4, 4), False, num_classes, in_channels, dropout=dropout)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """132,868,840 parameters; ImageNet: 29.63 % top-1 error, one crop (torchvision)."""
    return VGG((1, 1, 2, 2, 2), True, num_classes, in_channels, dropout=dropout)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """133,053,736 parameters; ImageNet: 28.41 % top-1 error, one crop (torchvision)."""
    return VGG((2, 2, 2, 2, 2), True, num_classes, in_channels, dropout=dropout)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """138,365,992 parameters; ImageNet: 26.64 % top-1 error, one crop (torchvision)."""
    return VGG((2, 2, 3, 3, 3), True, num_classes, in_channels, dropout=dropout)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5) -> VGG:
    """143,678,248 parameters; ImageNet: 25.78 % top-1 error, one crop (torchvision)."""
    return VGG((2, 2, 4, 4, 4), True, num_classes, in_channels, dropout=dropout)


def vgg16_bn_cifar(num_classes: int = 10, in_channels: int = 3) -> VGG:
    """14,728,266 parameters; VGG-16 with batch norm and no hidden layers, the usual variant for 32x32 images."""
    return VGG((2, 2, 3, 3, 3), True, num_classes, in_channels, hidden=0)
