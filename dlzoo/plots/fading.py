"""Gradients over the steps that they come back through, on a logarithmic scale."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, clean, margins, new, numbers, text_width
from dlzoo.plots.lines import LABEL_SIZE, draw_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["fading"]


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
    right = max(text_width(text, LABEL_SIZE) for text in texts.values()) + 0.35
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
    colors = [COLORS[index % len(COLORS)] for index in range(len(shares))]
    floor = axes.get_ylim()[0]  # where one that has vanished altogether is told
    ends = [max(share[-1], floor) for share in shares.values()]
    draw_labels(axes, list(zip(ends, texts.values(), colors, strict=True)))
    if note:
        width, height = figure.get_size_inches()
        figure.text(EDGE / width, 0.1 / height, note, fontsize=9, color=GREY, parse_math=False, va="bottom")
    return figure
