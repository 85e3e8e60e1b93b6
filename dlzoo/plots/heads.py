"""Maps of attention in a grid: a row of panels for each layer, a column for each head, the tokens beside them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import EDGE, GREY, HEAD, INK, clip_text, new, numbers, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["heads"]

LEAST, MOST = 1.2, 3.6  # inches of a panel's longer side
CELL = 0.1  # inches that a token is given, where there is room
READABLE = 0.075  # inches below which no token is written
GAP = 0.12
NAME = 12  # letters of a token that are shown


def heads(
    maps: Mapping[str, "Tensor | np.ndarray"], title: str, queries: Sequence[str], keys: Sequence[str], note: str = ""
) -> "Figure":
    """How much each token (a row of a panel) takes of each that it may see (a column). The colours follow the square root.

    Args:
        maps: weights from 0 to 1 of each layer, by its name.
        title: of which network.
        queries: the tokens that look.
        keys: the tokens that are looked at.
        note: one line at the foot.

    Shape:
        maps: (heads, queries, keys) each.

    Raises:
        ValueError: there is no map, or one that is not as large as the tokens are many.
    """
    if not maps:
        raise ValueError("maps must hold at least one layer, got none")
    layers = {name: numbers(weights) for name, weights in maps.items()}
    for name, weights in layers.items():
        if weights.ndim != 3 or weights.shape[1:] != (len(queries), len(keys)):
            raise ValueError(
                f"{name} must be of shape (heads, {len(queries)}, {len(keys)}), got {'x'.join(map(str, weights.shape))}"
            )
    columns = max(len(weights) for weights in layers.values())
    longer = max(len(queries), len(keys))
    single = columns == len(layers) == 1  # a map of its own, such as an alignment
    side = min(max((2 if single else 1) * CELL * longer, LEAST), (2 if single else 1) * MOST if columns <= 6 else LEAST)
    cell = side / longer
    tall, wide = cell * len(queries), cell * len(keys)
    size = min(8.0, 72 * 0.8 * cell)
    named = cell >= READABLE
    names = [[clip_text(word, NAME) for word in words] for words in (queries, keys)] if named else [[], []]
    longest = [max((text_width(name, size) for name in words), default=0.0) for words in names]
    left = EDGE + 0.25 + (longest[0] + 0.12 if named else 0.0)
    below = (longest[1] + 0.15 if named else 0.1) + (0.3 if note else 0.1)
    width = left + columns * (wide + GAP) + 0.85
    high = HEAD + 0.25 + len(layers) * (tall + GAP) + below
    width = max(width, text_width(note, 9) + 2 * EDGE, text_width(title, 11) + 2 * EDGE)
    figure = new(width, high, title)
    image = None
    for row, (name, weights) in enumerate(layers.items()):
        bottom = high - HEAD - 0.25 - (row + 1) * (tall + GAP) + GAP
        style = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 9, "color": INK, "parse_math": False}
        figure.text((EDGE + 0.05) / width, (bottom + tall / 2) / high, clip_text(name, max(6, int(tall / 0.075))), **style)
        for column, weight in enumerate(weights):
            place = (left + column * (wide + GAP), bottom, wide, tall)
            axes = figure.add_axes((place[0] / width, place[1] / high, place[2] / width, place[3] / high))
            image = axes.imshow(weight, cmap="Blues", norm=_norm(), interpolation="nearest", aspect="auto")
            axes.spines[:].set_color("#CCCCCC")
            axes.tick_params(length=0, labelsize=size, pad=1.5, labelcolor=INK)
            axes.set_xticks([])
            axes.set_yticks([])
            if named and column == 0:
                axes.set_yticks(range(len(queries)), names[0], parse_math=False)
            if named and row == len(layers) - 1:
                axes.set_xticks(range(len(keys)), names[1], rotation=90, parse_math=False)
            if row == 0 and not single:
                axes.set_title(f"head {column}", fontsize=9, color=INK, pad=3)
    bar_place = ((left + columns * (wide + GAP) + 0.02) / width, (high - HEAD - 0.25 - min(tall, 2.0)) / high, 0.1 / width)
    axes = figure.add_axes((*bar_place, min(tall, 2.0) / high))
    bar = figure.colorbar(image, cax=axes, ticks=[0, 0.05, 0.25, 0.5, 1], format=lambda share, _: f"{100 * share:g} %")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=GREY, labelcolor=INK)
    if note:
        figure.text(EDGE / width, 0.1 / high, note, fontsize=9, color=GREY, parse_math=False)
    return figure


def _norm() -> object:
    """The square root: of many tokens most weights are small, and would all be white."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, 0, 1)
