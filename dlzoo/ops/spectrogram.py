"""From a waveform to a spectrogram: what sounds at which pitch, and when.

The waveform is cut into overlapping windows, and each is taken apart into sines and cosines. That is a matrix product for every
window, so a convolution whose filters are these waves: it trains, runs and exports wherever a convolution does. People hear
ratios of pitches, so the mel scale then sums the frequencies up in bands that grow wider with the pitch.

Source: Stevens, Volkmann, Newman 1937, https://doi.org/10.1121/1.1915893 (the scale); its formula, 2595 log10(1 + f / 700), is
    that of the HTK book and torchaudio's default. Davis, Mermelstein 1980, https://doi.org/10.1109/TASSP.1980.1163420 (bands).
Differs from it: nothing that torchaudio.transforms.MelSpectrogram computes; there it is a fast Fourier transform.

Shapes: B signals, T samples, N samples of a window, F = N // 2 + 1 frequencies, M bands, L = 1 + T // hop windows.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fourier_filters", "mel_filters", "power_spectrogram"]


def fourier_filters(window: int) -> Tensor:
    """The cosines, then the sines, of every frequency, under a Hann window: (2 F, 1, N), float64.

    Raises:
        ValueError: a window of less than two samples.
    """
    if window < 2:
        raise ValueError(f"window must be at least 2 samples, got {window}")
    time = torch.arange(window)
    turns = torch.outer(torch.arange(window // 2 + 1), time) % window  # whole turns off: the angles stay small and exact
    angles = turns.double() * (2 * math.pi / window)
    waves = torch.cat([angles.cos(), -angles.sin()]) * torch.hann_window(window, dtype=torch.float64)
    return waves[:, None]


def mel_filters(bands: int, window: int, sample_rate: int) -> Tensor:
    """How much each frequency counts in each band: triangles that overlap by half, evenly spaced in mel: (M, F), float64.

    Raises:
        ValueError: no band, or so many that the lowest ones fall between two frequencies.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1, got {bands}")
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)  # in mel
    edges = [700 * (10 ** (highest * n / (bands + 1) / 2595) - 1) for n in range(bands + 2)]  # in hertz
    step = (sample_rate // 2) / (window // 2)  # from one frequency to the next
    empty = sum((low // step + 1) * step >= high for low, high in zip(edges, edges[2:], strict=False))
    if empty:
        raise ValueError(f"{empty} of {bands} bands hold no frequency of a window of {window} samples; take fewer bands")
    corners = torch.tensor(edges, dtype=torch.float64)  # (M + 2,)
    frequencies = torch.linspace(0, sample_rate // 2, window // 2 + 1, dtype=torch.float64)
    distance = corners[:, None] - frequencies  # (M + 2, F)
    width = corners.diff()[:, None]  # (M + 1, 1)
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0)


def power_spectrogram(x: Tensor, filters: Tensor, hop: int) -> Tensor:
    """The power of each frequency in windows around every hop-th sample; beyond its ends the signal is mirrored.

    Args:
        x: signals, longer than half a window.
        filters: from `fourier_filters`, in the type and on the device of x.
        hop: samples from one window to the next.

    Shape:
        (B, T), (2 F, 1, N) -> (B, F, L).
    """
    half = filters.shape[-1] // 2
    x = F.pad(x[:, None], (half, half), mode="reflect")  # (B, 1, T + N)
    cosines, sines = F.conv1d(x, filters, stride=hop).chunk(2, dim=1)  # (B, F, L) each
    return cosines.square() + sines.square()
