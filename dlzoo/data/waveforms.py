"""Waveforms: read from files, brought to the rate and length that a network gets.

The one place that imports torchaudio and soundfile, an extra of dlzoo. Reading is soundfile's part, resampling torchaudio's.
"""

from __future__ import annotations

import io
import sys
import threading
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.errors import ConfigError, DataError
from dlzoo.ops.spectrogram import fourier_filters, mel_filters, power_spectrogram

__all__ = ["WaveformPreprocess", "fit", "read_waveform", "torchaudio", "write_waveform"]

_importing = threading.Lock()


@dataclass(frozen=True)
class WaveformPreprocess:
    """How a recording becomes the network's input.

    Args:
        sample_rate: of the input, in hertz; recordings of another rate are resampled.
        samples: length of the input; see `fit`.
        normalize: brings the loudest sample of each recording to 1 or -1: recordings differ a hundredfold, words do not.

    Raises:
        ValueError: a number that is not positive.
    """

    sample_rate: int
    samples: int
    normalize: bool = True

    channels = 1  # several channels are averaged

    def __post_init__(self) -> None:
        if self.sample_rate < 1 or self.samples < 1:
            raise ValueError(f"sample_rate and samples must be at least 1, got {self.sample_rate} and {self.samples}")

    @property
    def shape(self) -> tuple[int, int]:
        """Of one input: (1, T)."""
        return self.channels, self.samples

    def __call__(self, file: str | Path | bytes) -> Tensor:
        """A recording -> (1, samples), float32, from -1 to 1.

        Raises:
            DataError: the file is missing or is no readable recording.
        """
        return self.prepare(read_waveform(file, self.sample_rate))[None]

    def prepare(self, wave: Tensor) -> Tensor:
        """A recording of the right rate -> (samples,); silence stays silence."""
        wave = fit(wave, self.samples)
        return wave / wave.abs().max().clamp(min=1e-6) if self.normalize else wave

    def save(self, wave: Tensor, path: Path) -> None:
        """One input, (1, T), as a wav file."""
        write_waveform(wave[0], path, self.sample_rate)

    def spectrogram(self, waves: Tensor, bands: int = 40) -> Tensor:
        """What to show of waveforms: (B, T) -> (B, bands, L), the log-mel power in decibels, windows of 32 ms every 8 ms."""
        window, hop = self.sample_rate * 32 // 1000, self.sample_rate * 8 // 1000
        power = power_spectrogram(waves.double(), fourier_filters(window), hop)
        return 10 * (mel_filters(bands, window, self.sample_rate) @ power + 1e-6).log10().float()

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `kind` tells them from a picture's."""
        return {"kind": "wave", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WaveformPreprocess:
        """What `as_dict` gave."""
        return cls(**{name: value for name, value in values.items() if name != "kind"})


def read_waveform(file: str | Path | bytes, sample_rate: int, name: str = "") -> Tensor:
    """A recording, its channels averaged, at this rate: (T,), float32, from -1 to 1.

    Args:
        file: path of a wav, flac, ogg or mp3 file, or its content.
        sample_rate: in hertz.
        name: of the file, for messages, where its content is given.

    Raises:
        DataError: the file is missing, is no readable recording, or holds no sample.
        ConfigError: soundfile is not installed; torchaudio neither, where it takes resampling.
    """
    soundfile = _soundfile()
    name = name or (str(file) if not isinstance(file, bytes) else "the recording")
    try:
        values, rate = soundfile.read(io.BytesIO(file) if isinstance(file, bytes) else file, dtype="float32", always_2d=True)
        if not len(values):
            raise ValueError("it holds no sample")
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        if not isinstance(file, bytes) and not Path(file).is_file():
            raise DataError(f"there is no recording {name}.", where=name, fix="give the path of a wav file") from None
        raise DataError(
            f"{name} is not a readable recording ({str(error).rstrip('.')}).",
            where=name,
            safe="all other files",
            fix="remove the file, or replace it by a good copy (wav, flac, ogg or mp3)",
        ) from error
    wave = torch.from_numpy(values).mean(1)
    return wave if rate == sample_rate else torchaudio().functional.resample(wave, rate, sample_rate)


def write_waveform(wave: Tensor, path: Path, sample_rate: int) -> None:
    """(T,), from -1 to 1 -> a file, 16 bits a sample; what is louder is cut off."""
    _soundfile().write(path, wave.detach().float().cpu().clamp(-1, 1).numpy(), sample_rate, subtype="PCM_16")


def fit(wave: Tensor, samples: int) -> Tensor:
    """Brings a recording to this length: (T,) -> (samples,).

    A shorter one gets silence in equal parts on both sides. Of a longer one the window with the most energy is kept: in a long
    recording the word is where it is loud.
    """
    missing = samples - len(wave)
    if missing >= 0:
        return F.pad(wave, (missing // 2, missing - missing // 2))
    energy = F.pad(wave.double().square().cumsum(0), (1, 0))  # (T + 1,)
    start = int((energy[samples:] - energy[:-samples]).argmax())
    return wave[start : start + samples]


def torchaudio() -> ModuleType:
    """torchaudio, imported beside any torch.

    Release 2.11 is its last, and because of its compiled parts it refuses a torch that was built for another CUDA than its own.
    Nothing here uses those, and where torch says that it has no CUDA it compares nothing: so torch says so during the import.

    Raises:
        ConfigError: it is not installed.
    """
    with _importing:  # one thread at a time takes the version away, and none once it is there
        if found := sys.modules.get("torchaudio"):
            return found
        cuda = torch.version.cuda
        torch.version.cuda = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is in maintenance, at every import
                import torchaudio as module
        except ImportError as error:
            raise _missing("torchaudio", error) from error
        finally:
            torch.version.cuda = cuda
    return module


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: there is no libsndfile
        raise _missing("soundfile", error) from error
    return soundfile


def _missing(package: str, error: Exception) -> ConfigError:
    return ConfigError(f"recordings need {package}, which is not there ({error})", fix='pip install "dlzoo[audio]"')
