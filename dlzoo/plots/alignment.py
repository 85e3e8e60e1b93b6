"""Where a translator looked while it wrote: a square for each pair of a written and a read token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import EDGE, GREY, HEAD, INK, margins, new, numbers, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["alignment"]

CELL = 0.26  # inches
LETTERS = 9  # points


def alignment(
    weights: "Tensor | np.ndarray", source: Sequence[str], target: Sequence[str], title: str, note: str = ""
) -> "Figure":
    """The weights as squares, darker for more; source tokens above the columns, written tokens left of the rows.

    Args:
        weights: (T, S); each row sums to 1.
        source: the S tokens that were read.
        target: the T tokens that were written.
        title: over the picture.
        note: below it, such as whose weights they are.

    Raises:
        ValueError: not as many rows and columns as tokens, or none.
    """
    values = numbers(weights)
    if values.shape != (len(target), len(source)) or not values.size:
        raise ValueError(f"weights must be of shape ({len(target)}, {len(source)}), got {values.shape}")
    left = EDGE + max(text_width(token, LETTERS) for token in target) + 0.12
    above = HEAD + max(text_width(token, LETTERS) for token in source) + 0.12
    bottom = EDGE + 0.25 * bool(note)
    width = max(left + CELL * len(source) + EDGE, text_width(note, LETTERS) + 2 * EDGE, 4.0)
    figure = new(width, above + CELL * len(target) + bottom, title)
    axes = figure.subplots()
    margins(figure, left=left, right=width - left - CELL * len(source), top=above, bottom=bottom)
    axes.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(source)), source, rotation=90, fontsize=LETTERS, color=INK, parse_math=False)
    axes.set_yticks(range(len(target)), target, fontsize=LETTERS, color=INK, parse_math=False)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, color=GREY, length=2)
    for side in axes.spines.values():
        side.set_color(GREY)
    if note:
        figure.text(EDGE / width, 0.08 / figure.get_size_inches()[1], note, fontsize=LETTERS, color=GREY)
    return figure
