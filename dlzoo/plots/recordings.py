"""Recordings in a grid: of each the waveform and, below it, its spectrogram, with a caption."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, blank, clip_text, new, numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["recording_grid"]

WIDE, WAVE, SPECTRUM = 1.75, 0.42, 0.85  # inches of one recording: its width, the heights of the two parts
BETWEEN, LINE = 0.14, 0.17  # inches from one recording to the next, and of a line of caption
RANGE = 60.0  # decibels below the loudest place that are shown
FOOT = 0.3


def recording_grid(
    waves: "Tensor | np.ndarray",
    spectrograms: "Tensor | np.ndarray",
    captions: Sequence[str],
    title: str,
    seconds: float,
    columns: int = 6,
) -> "Figure":
    """The recordings row by row, each below its caption: the waveform, then low bands at the bottom and high ones at the top.

    Each recording is drawn to its own loudness, as one listens; the loudest sample of each is written beside its waveform.

    Args:
        waves: samples, about -1 to 1.
        spectrograms: power of each band over time, in decibels.
        captions: one for each recording.
        title: what is shown.
        seconds: length of a recording.
        columns: recordings in a row.

    Shape:
        waves: (N, T); spectrograms: (N, M, L).

    Raises:
        ValueError: the numbers of waves, spectrograms and captions differ.
    """
    if not len(waves) == len(spectrograms) == len(captions):
        counts = f"{len(waves)}, {len(spectrograms)} and {len(captions)}"
        raise ValueError(f"waves, spectrograms and captions must be equally many, got {counts}")
    if not len(waves):
        return blank(title)
    waves, spectrograms = np.nan_to_num(numbers(waves)), np.nan_to_num(numbers(spectrograms))
    columns = min(columns, len(waves))
    across, down = WIDE + BETWEEN, WAVE + SPECTRUM + LINE + BETWEEN
    wide, high = max(columns * across + 2 * EDGE - BETWEEN, 4.0), math.ceil(len(waves) / columns) * down + HEAD + FOOT
    figure = new(wide, high, title)
    axes = figure.add_axes((EDGE / wide, FOOT / high, (columns * across - BETWEEN) / wide, (high - HEAD - FOOT) / high))
    axes.set_axis_off()
    for index, (wave, spectrogram, caption) in enumerate(zip(waves, spectrograms, captions, strict=True)):
        left, top = (index % columns) * across, -(index // columns) * down
        style = {"fontsize": 8.5, "color": INK, "verticalalignment": "top", "parse_math": False}
        axes.text(left, top, clip_text(caption, 28), **style)
        peak = np.abs(wave).max()
        times, low, high_ = _envelope(wave)
        middle = top - LINE - WAVE / 2
        scale = WAVE / 2 / peak if peak else 0.0
        axes.fill_between(left + times * WIDE, middle + low * scale, middle + high_ * scale, color=COLORS[0], linewidth=0.4)
        style = {"fontsize": 6.5, "color": GREY, "verticalalignment": "top", "horizontalalignment": "right"}
        axes.text(left + WIDE, top - 0.02, f"peak {peak:.2f}", **style)
        loudest = spectrogram.max()
        bottom = top - LINE - WAVE - SPECTRUM
        axes.imshow(
            spectrogram,
            cmap="magma",
            vmin=loudest - RANGE,
            vmax=max(loudest, loudest - RANGE + 1e-6),
            extent=(left, left + WIDE, bottom, bottom + SPECTRUM),
            origin="lower",
            interpolation="nearest",
        )
    foot = f"each {seconds:g} s; mel bands, low to high; brightness: the loudest {RANGE:.0f} dB"
    figure.text(EDGE / wide, 0.1 / high, foot, fontsize=8, color=GREY)
    axes.set(xlim=(0, columns * across - BETWEEN), ylim=(-(high - HEAD - FOOT), 0), aspect="auto")  # inches
    return figure


def _envelope(wave: np.ndarray, points: int = 180) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times from 0 to 1, and the lowest and highest sample near each: what an eye makes of thousands of samples."""
    parts = np.array_split(wave, min(points, len(wave)))
    times = np.linspace(0, 1, len(parts))
    return times, np.array([part.min() for part in parts]), np.array([part.max() for part in parts])
