"""A log-mel spectrogram as a layer: a network that begins with it takes waveforms, in training, in ONNX, anywhere.

Source: see ops/spectrogram.py.
Differs from it: the logarithm is of power + floor, so that silence is a number.

Shapes: B batch, C channels, T samples, M bands, L = 1 + T // hop windows.
"""

import torch
from torch import Tensor, nn

from dlzoo.ops.spectrogram import fourier_filters, mel_filters, power_spectrogram

__all__ = ["LogMel"]


class LogMel(nn.Module):
    """log(mel power + floor) of waveforms with values about -1 to 1. It has no parameters.

    Args:
        sample_rate: of the waveforms, in hertz.
        window: samples of a window; any number, no power of two is needed.
        hop: samples from one window to the next.
        bands: rows of the spectrogram.
        floor: the power below which all is silence. In fp32 a window's quiet frequencies carry the rounding of its loud ones,
            about 1e-6 of them: a lower floor would show it.

    Shape:
        (B, C, T) -> (B, C, M, L), for T above window / 2.

    Raises:
        ValueError: a number that is not positive, or more bands than the window tells apart.
    """

    def __init__(self, sample_rate: int, window: int, hop: int, bands: int, floor: float = 1e-5) -> None:
        super().__init__()
        for name, value in (("sample_rate", sample_rate), ("hop", hop), ("floor", floor)):
            if value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        self.sample_rate, self.window, self.hop, self.bands, self.floor = sample_rate, window, hop, bands, floor
        dtype = torch.get_default_dtype()
        self.register_buffer("waves", fourier_filters(window).to(dtype))  # (2 F, 1, N)
        self.register_buffer("triangles", mel_filters(bands, window, sample_rate).to(dtype))  # (M, F)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):  # 8 bits are too few for a sum of squares that spans 60 dB
            with torch.autocast(x.device.type, enabled=False):
                return self._log_mel(x.to(self.waves.dtype))
        return self._log_mel(x)

    def _log_mel(self, x: Tensor) -> Tensor:
        power = power_spectrogram(x.flatten(0, 1), self.waves, self.hop)  # (B * C, F, L)
        mel = (self.triangles @ power).unflatten(0, (x.shape[0], x.shape[1]))  # (B, C, M, L)
        return (mel + self.floor).log()

    def extra_repr(self) -> str:
        return f"sample_rate={self.sample_rate}, window={self.window}, hop={self.hop}, bands={self.bands}, floor={self.floor}"
