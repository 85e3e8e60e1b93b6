"""Small residual networks on log-mel spectrograms, for spoken words: res8, res15, res26.

A spectrogram is a picture of what sounds when, so a ResNet for pictures reads it; a word needs one of a few layers and equal
width throughout. What differs from pictures is distance: res8 and res26 average neighbours once, right behind the first layer,
res15 keeps every pixel and spreads its 3x3 kernels by 1, 2, 4, 8, 16 instead, to see most of a second. The spectrogram is
computed inside the network, so that it takes waveforms, also when it is exported.

Source: Tang, Lin 2018, Deep Residual Learning for Small-Footprint Keyword Spotting, https://arxiv.org/abs/1710.10361,
    section 3 and table 1.
Differs from it: log-mel bands where the paper goes on to their cosine transform (MFCC), each normalised over the batch; in
    training stripes of them can be blotted out (SpecAugment).

Shapes: B batch, C channels, T samples, M bands, L = 1 + T // hop windows, W maps.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.log_mel import LogMel
from dlzoo.nn.spec_augment import SpecAugment

__all__ = [
    "MelFrontEnd",
    "MelResNet",
    "melresnet8",
    "melresnet8_narrow",
    "melresnet15",
    "melresnet15_narrow",
    "melresnet26",
    "melresnet26_narrow",
]

WIDE, NARROW = 45, 19  # maps


class MelFrontEnd(nn.Module):
    """Log-mel bands in windows of 30 ms every 10 ms, each band normalised; in training with stripes blotted out.

    Args:
        sample_rate: of the waveforms, in hertz.
        bands: of the spectrogram.
        mask_bands: the widest stripe of bands that is blotted out in training; 0 for none.
        mask_frames: the longest stretch of windows; 0 for none.

    Shape:
        (B, C, T) -> (B, C, M, L).
    """

    def __init__(self, sample_rate: int = 16_000, bands: int = 40, mask_bands: int = 0, mask_frames: int = 0) -> None:
        super().__init__()
        self.log_mel = LogMel(sample_rate, window=sample_rate * 3 // 100, hop=sample_rate // 100, bands=bands)
        self.norm = nn.BatchNorm2d(bands, affine=False)
        self.mask = SpecAugment(mask_bands, mask_frames)

    def forward(self, x: Tensor) -> Tensor:
        x = self.log_mel(x)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)  # a band is a channel to it
        return self.mask(x)


class MelResNet(nn.Module):
    """A 3x3 convolution, then pairs of them, each pair beside a shortcut, all of one width; an average, a linear head.

    Args:
        front: waveforms -> spectrograms.
        layers: 3x3 convolutions behind the first; an odd last one stands alone.
        width: maps of every layer.
        num_classes: width of the output.
        in_channels: channels of the waveform.
        pool: (bands, windows) that are averaged to one behind the first layer; (1, 1) keeps all.
        dilated: spreads the kernels, twice as far every third layer.

    Shape:
        (B, in_channels, T) -> (B, num_classes), logits.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(
        self,
        front: nn.Module,
        layers: int,
        width: int = WIDE,
        num_classes: int = 12,
        in_channels: int = 1,
        pool: tuple[int, int] = (1, 1),
        dilated: bool = False,
    ) -> None:
        super().__init__()
        numbers = {"layers": layers, "width": width, "num_classes": num_classes, "in_channels": in_channels, "pool": min(pool)}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.front = front
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(pool)
        self.convs = nn.ModuleList()
        for layer in range(layers):
            spread = 2 ** (layer // 3) if dilated else 1
            self.convs.append(nn.Conv2d(width, width, 3, padding=spread, dilation=spread, bias=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for _ in range(layers))
        self.head = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The map before the average: (B, in_channels, T) -> (B, W, M / pool, L / pool), rounded down."""
        x = shortcut = self.pool(F.relu(self.stem(self.front(x))))
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(conv(x))
            if layer % 2:  # the second of a pair
                x = shortcut = x + shortcut
            x = norm(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))  # (B, W)
        return self.head(x)  # (B, num_classes)


def melresnet8(
    num_classes: int = 12,
    in_channels: int = 1,
    sample_rate: int = 16_000,
    bands: int = 40,
    mask_bands: int = 0,
    mask_frames: int = 0,
) -> MelResNet:
    """110,307 parameters (paper: 110 K); 12 of the Speech Commands in the paper: 94.1 %."""
    front = MelFrontEnd(sample_rate, bands, mask_bands, mask_frames)
    return MelResNet(front, 6, WIDE, num_classes, in_channels, pool=(4, 3))


def melresnet8_narrow(
    num_classes: int = 12,
    in_channels: int = 1,
    sample_rate: int = 16_000,
    bands: int = 40,
    mask_bands: int = 0,
    mask_frames: int = 0,
) -> MelResNet:
    """19,905 parameters (paper: 19.9 K); 12 of the Speech Commands in the paper: 90.1 %."""
    front = MelFrontEnd(sample_rate, bands, mask_bands, mask_frames)
    return MelResNet(front, 6, NARROW, num_classes, in_channels, pool=(4, 3))


def melresnet15(
    num_classes: int = 12,
    in_channels: int = 1,
    sample_rate: int = 16_000,
    bands: int = 40,
    mask_bands: int = 0,
    mask_frames: int = 0,
) -> MelResNet:
    """237,882 parameters (paper: 238 K); 12 of the Speech Commands in the paper: 95.8 %."""
    front = MelFrontEnd(sample_rate, bands, mask_bands, mask_frames)
    return MelResNet(front, 13, WIDE, num_classes, in_channels, dilated=True)


def melresnet15_narrow(
    num_classes: int = 12,
    in_channels: int = 1,
    sample_rate: int = 16_000,
    bands: int = 40,
    mask_bands: int = 0,
    mask_frames: int = 0,
) -> MelResNet:
    """42,648 parameters (paper: 42.6 K); 12 of the Speech Commands in the paper: 94.0 %."""
    front = MelFrontEnd(sample_rate, bands, mask_bands, mask_frames)
    return MelResNet(front, 13, NARROW, num_classes, in_channels, dilated=True)


def melresnet26(
    num_classes: int = 12,
    in_channels: int = 1,
    sample_rate: int = 16_000,
    bands: int = 40,
    mask_bands: int = 0,
    mask_frames: int = 0,
) -> MelResNet:
    """438,357 parameters (paper: 438 K); 12 of the Speech Commands in the paper: 95.2 %."""
    front = MelFrontEnd(sample_rate, bands, mask_bands, mask_frames)
    return MelResNet(front, 24, WIDE, num_classes, in_channels, pool=(2, 2))


def melresnet26_narrow(
    num_classes: int = 12,
    in_channels: int = 1,
    sample_rate: int = 16_000,
    bands: int = 40,
    mask_bands: int = 0,
    mask_frames: int = 0,
) -> MelResNet:
    """78,387 parameters (paper: 78.4 K); 12 of the Speech Commands in the paper: 93.3 %."""
    front = MelFrontEnd(sample_rate, bands, mask_bands, mask_frames)
    return MelResNet(front, 24, NARROW, num_classes, in_channels, pool=(2, 2))
