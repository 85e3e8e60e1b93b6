"""How the inputs of a network look to a person: one class for each form of them, known by the number of its dimensions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlzoo.plots.images import image_grid, save_image
from dlzoo.plots.recordings import recording_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Images", "Waves", "look"]


class Images:
    """Pictures: (B, C, H, W).

    Args:
        data: the datamodule; its `preprocess` turns inputs back into colours.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def grid(self, inputs: Tensor, captions: Sequence[str], title: str) -> "Figure":
        """The inputs side by side, each above its caption."""
        return image_grid(self.data.preprocess.denormalize(inputs), captions, title)

    def save(self, one: Tensor, folder: Path) -> None:
        """One input, (C, H, W), as the file that the printed command for a prediction names."""
        save_image(self.data.preprocess.denormalize(one[None])[0], folder / "example.png")


class Waves:
    """Recordings: (B, 1, T).

    Args:
        data: the datamodule; its `preprocess` makes spectrograms and wav files.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def grid(self, inputs: Tensor, captions: Sequence[str], title: str) -> "Figure":
        """Waveforms and spectrograms side by side, each below its caption."""
        waves, preprocess = inputs[:, 0].float(), self.data.preprocess
        seconds = waves.shape[1] / preprocess.sample_rate
        return recording_grid(waves, preprocess.spectrogram(waves), captions, title, seconds)

    def save(self, one: Tensor, folder: Path) -> None:
        """One input, (1, T), as the file that the printed command for a prediction names."""
        self.data.preprocess.save(one, folder / "example.wav")


LOOKS = {3: Waves, 4: Images}


def look(data: Any, inputs: Tensor) -> Images | Waves | None:
    """What shows such inputs; None where nothing does."""
    kind = LOOKS.get(inputs.ndim)
    return kind(data) if kind else None
