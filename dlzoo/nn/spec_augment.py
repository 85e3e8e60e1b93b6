"""SpecAugment: in training, a stripe of bands and a stretch of time of each spectrogram are blotted out.

A network that must do without any one pitch range or moment does not lean on a single cue. It is to spectrograms what dropout
is to features, and like dropout it draws from torch's own generator, which a checkpoint keeps.

Source: Park, Chan, Zhang, Chiu, Zoph, Cubuk, Le 2019, SpecAugment, https://arxiv.org/abs/1904.08779, section 2.
Differs from it: no time warping, which the paper finds to matter least. The draws are those of torchaudio's
    FrequencyMasking and TimeMasking (iid_masks=True), in this order.

Shapes: B batch, C channels, M bands, L windows.
"""

import torch
from torch import Tensor, nn

__all__ = ["SpecAugment"]


class SpecAugment(nn.Module):
    """Sets up to `bands` neighbouring rows and `frames` neighbouring columns to 0, the mean where the input is normalised.

    Args:
        bands: the widest stripe of bands, exclusive; 0 for none.
        frames: the longest stretch of time, exclusive; 0 for none.

    Shape:
        (B, C, M, L) -> (B, C, M, L).

    Raises:
        ValueError: a negative width.
    """

    def __init__(self, bands: int = 0, frames: int = 0) -> None:
        super().__init__()
        if bands < 0 or frames < 0:
            raise ValueError(f"bands and frames must be at least 0, got {bands} and {frames}")
        self.bands, self.frames = bands, frames

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            for axis, widest in ((2, self.bands), (3, self.frames)):
                if widest:
                    x = x.masked_fill(_stripe(x, axis, widest), 0.0)
        return x

    def extra_repr(self) -> str:
        return f"bands={self.bands}, frames={self.frames}"


def _stripe(x: Tensor, axis: int, widest: int) -> Tensor:
    """Which places a random stripe of each spectrogram covers: (B, C, M or 1, L or 1)."""
    size = x.shape[axis]
    width = torch.rand(x.shape[:2], device=x.device, dtype=x.dtype) * widest
    start = (torch.rand(x.shape[:2], device=x.device, dtype=x.dtype) * (size - width)).long()[..., None]  # (B, C, 1)
    place = torch.arange(size, device=x.device)
    covered = (place >= start) & (place < start + width.long()[..., None])  # (B, C, size)
    return covered.unsqueeze(3 if axis == 2 else 2)
