"""What a language model expects next, as a table of colours: a row for each place of a text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, clip_text, new, numbers, text_width

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["next_tokens"]

ROW = 0.2  # inches
SIZE = 8.5  # points
NAME = 14  # letters of a token that are shown


def next_tokens(
    read: Sequence[str],
    true: Sequence[str],
    probability: "Tensor | np.ndarray",
    candidates: Sequence[Sequence[str]],
    probabilities: "Tensor | np.ndarray",
    hits: Sequence[int | None],
    title: str,
    note: str = "",
) -> "Figure":
    """Each row: the token that was read, the one that comes with its probability, and the likeliest candidates.

    Args:
        read: the token of each place.
        true: the one that follows.
        probability: of that one.
        candidates: the likeliest, the likeliest first; of each place as many.
        probabilities: theirs.
        hits: which candidate is the one that comes, None where none is.
        title: of which network.
        note: one line at the foot.

    Shape:
        probability (T,), probabilities (T, k).

    Raises:
        ValueError: there is no place, or another number of anything.
    """
    own, shares = numbers(probability), numbers(probabilities)
    count = len(read)
    if not count or not len(true) == len(own) == len(candidates) == len(shares) == len(hits) == count:
        raise ValueError(f"there must be at least 1 place, and of all else as many, got {count} and {len(true)}")
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    words = [
        [clip_text(word, NAME) for word in (*row, one, other)] for row, one, other in zip(candidates, read, true, strict=True)
    ]
    cell = max(max(text_width(word, SIZE) for row in words for word in row) + 0.5, 0.75)  # the name, and per cent
    columns = shares.shape[1]
    wide = max(2 * EDGE + (columns + 2) * cell + 0.2, text_width(note, 9) + 2 * EDGE, text_width(title, 11) + 2 * EDGE)
    high = HEAD + 0.3 + count * ROW + (0.4 if note else 0.15)
    figure = new(wide, high, title)
    axes = figure.add_axes((EDGE / wide, (0.35 if note else 0.1) / high, 1 - 2 * EDGE / wide, (count * ROW + 0.3) / high))
    axes.set_axis_off()
    axes.set(xlim=(0, wide - 2 * EDGE), ylim=(count + 1.5, 0))
    palette = colormaps["Blues"]
    style = {"fontsize": SIZE, "va": "center", "parse_math": False}
    starts = [0.0, cell, *(2 * cell + 0.2 + column * cell for column in range(columns))]
    for start, head in zip(
        starts, ["read", "what comes", *(f"choice {place}" for place in range(1, columns + 1))], strict=True
    ):
        axes.text(start + 0.05, 0.6, head, color=GREY, **style)
    for index in range(count):
        y = index + 1.8
        axes.text(0.05, y, words[index][-2], color=INK, **style)
        axes.text(cell + 0.05, y, words[index][-1], color=INK, **style)
        axes.text(2 * cell - 0.08, y, _per_cent(own[index]), color=GREY, ha="right", **style)
        for column in range(columns):
            start, share = starts[2 + column], shares[index, column]
            hit = hits[index] == column
            edge = {"edgecolor": COLORS[1], "linewidth": 1.6, "zorder": 2} if hit else {"edgecolor": "white", "linewidth": 0.8}
            axes.add_patch(Rectangle((start, y - 0.46), cell - 0.04, 0.92, facecolor=palette(share**0.5 * 0.85), **edge))
            color = "white" if share > 0.45 else INK
            axes.text(start + 0.05, y, words[index][column], color=color, zorder=3, **style)
            axes.text(start + cell - 0.09, y, _per_cent(share), color=color, ha="right", zorder=3, **style)
    if note:
        figure.text(EDGE / wide, 0.1 / high, note, fontsize=9, color=GREY, parse_math=False)
    return figure


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.0095 else "<1"
