"""Gradients over the steps that they come back through, on a logarithmic scale."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, clean, margins, new, numbers, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["fading"]

SIZE = 9.5


def fading(curves: Mapping[str, "Tensor | np.ndarray"], title: str, label: str, note: str = "") -> "Figure":
    """A line each, as shares of its value at the last step; at its end its name, and the share that is left at the first step.

    Args:
        curves: norms of gradients at each step, the first step first.
        title: what was differentiated.
        label: of the vertical axis.
        note: lines at the foot.

    Raises:
        ValueError: there is no curve, one has fewer than 2 steps, or ends in 0.
    """
    found = {name: numbers(values) for name, values in curves.items()}
    for name, values in found.items():
        if values.ndim != 1 or len(values) < 2 or not values[-1] > 0:
            raise ValueError(f"{name} must be norms of at least 2 steps, the last above 0")
    if not found:
        raise ValueError("curves must be at least one, got none")
    shares = {name: values[::-1] / values[-1] for name, values in found.items()}  # from the last step back
    texts = {name: f"{name}: {share[-1]:.2g}" for name, share in shares.items()}
    right = max(text_width(text, SIZE) for text in texts.values()) + 0.35
    lines = note.count("\n") + 1 if note else 0
    figure = new(max(6.2 + right, text_width(note, 9) + 2 * EDGE), 4.6 + 0.16 * lines, title)
    axes = figure.subplots()
    margins(figure, left=0.9, right=right, top=HEAD + 0.1, bottom=0.6 + 0.16 * lines)
    clean(axes)
    for index, share in enumerate(shares.values()):
        shown = np.where(share > 0, share, np.nan)
        style = "-" if index < len(COLORS) else "--"
        axes.plot(range(len(share)), shown, style, color=COLORS[index % len(COLORS)], linewidth=1.8)
    axes.set_yscale("log")
    axes.set_xlim(0, max(map(len, shares.values())) - 1)
    axes.set_xlabel("steps back from the last one", fontsize=10, color=INK)
    axes.set_ylabel(label, fontsize=10, color=INK)
    bottom, top = np.log10(axes.get_ylim())
    line = 0.17 / (figure.get_figheight() * axes.get_position().height)  # of text, as a share of the axes
    ends = [(np.log10(max(share[-1], 10.0**bottom)) - bottom) / (top - bottom) for share in shares.values()]
    for place, (index, text) in zip(_apart(ends, line), enumerate(texts.values()), strict=True):
        style = {"color": COLORS[index % len(COLORS)], "fontsize": SIZE, "va": "center", "parse_math": False}
        axes.text(1.015, place, text, transform=axes.transAxes, **style)
    if note:
        width, height = figure.get_size_inches()
        figure.text(EDGE / width, 0.1 / height, note, fontsize=9, color=GREY, parse_math=False, va="bottom")
    return figure


def _apart(heights: list[float], line: float) -> list[float]:
    """The heights, moved up where one is nearer than a line to the one below it, and then down where they leave the axes."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for low, high in pairwise(order):
        placed[high] = max(placed[high], placed[low] + line)
    ceiling = 1.0
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - line
    return placed
