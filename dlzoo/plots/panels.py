"""Pictures in rows, with heat laid over them: what a network sees in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, blank, clip_text, new, numbers, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["Panel", "Scale", "panels"]

CELL = 1.3  # inches a panel is wide
GAP = 0.1
LABELS = 9  # points


@dataclass(frozen=True)
class Panel:
    """One picture.

    Args:
        image: values from 0 to 1, (1 or 3, H, W); None where there is only heat.
        heat: (h, w), stretched over the picture; None where there is only the picture.
        caption: below it, at most two lines.
        box: left, top, right and bottom of a frame, in pixels.
        mark: whether the caption stands out, such as that of a mistake.
    """

    image: "Tensor | np.ndarray | None" = None
    heat: "Tensor | np.ndarray | None" = None
    caption: str = ""
    box: tuple[float, float, float, float] | None = None
    mark: bool = False


@dataclass(frozen=True)
class Scale:
    """The colours of heat.

    Args:
        low: the value of the first colour.
        high: the value of the last.
        label: what the values are.
        colours: a map of matplotlib's.
        ends: words instead of the numbers at both ends of the bar.
    """

    low: float = 0.0
    high: float = 1.0
    label: str = ""
    colours: str = "turbo"
    ends: tuple[str, str] | None = None


def panels(
    rows: Sequence[Sequence[Panel]],
    title: str,
    labels: Sequence[str] = (),
    scale: Scale | None = None,
    note: str = "",
) -> "Figure":
    """The panels row by row, each row with a label at its left, and one bar for the colours of all heat.

    Args:
        rows: each of any length.
        title: what is shown.
        labels: one for each row, or none at all.
        scale: of the heat; None draws no bar.
        note: one line at the foot: what to look at.

    Raises:
        ValueError: labels of another number than rows, or an image that is none.
    """
    if labels and len(labels) != len(rows):
        raise ValueError(f"labels must be one for each of {len(rows)} rows, got {len(labels)}")
    if not any(rows):
        return blank(title)
    captions = [max((_lines(panel.caption) for panel in row), default=0) for row in rows]
    heights = [
        CELL * max(_aspect(panel) for panel in row) + 0.06 + 0.15 * count for row, count in zip(rows, captions, strict=True)
    ]
    words = ["\n".join(clip_text(line, 24) for line in label.split("\n")) for label in labels]
    beside = max((text_width(word, LABELS) for word in words), default=0.0)
    left = EDGE + (beside + 0.15 if words else 0.0)
    right = 0.95 if scale else EDGE
    columns = max(len(row) for row in rows)
    bottom = 0.32 if note else 0.1
    wide = max(left + columns * (CELL + GAP) - GAP + right, 5.2, text_width(note, 9) + 2 * EDGE)
    high = HEAD + sum(heights) + GAP * (len(rows) - 1) + bottom
    figure = new(wide, high, title)
    top = high - HEAD
    for index, row in enumerate(rows):
        for column, panel in enumerate(row):
            tall = CELL * _aspect(panel)
            place = (left + column * (CELL + GAP), top - tall, CELL, tall)
            axes = figure.add_axes((place[0] / wide, place[1] / high, place[2] / wide, place[3] / high))
            _draw(axes, panel, scale or Scale())
            if panel.caption:
                color = COLORS[1] if panel.mark else INK
                style = {"horizontalalignment": "center", "verticalalignment": "top", "linespacing": 1.1, "parse_math": False}
                text = "\n".join(clip_text(line, 22) for line in panel.caption.split("\n"))
                figure.text((place[0] + CELL / 2) / wide, (place[1] - 0.04) / high, text, fontsize=8.5, color=color, **style)
        if words and row:
            middle = (top - CELL * _aspect(row[0]) / 2) / high
            style = {"verticalalignment": "center", "parse_math": False, "fontsize": LABELS, "color": INK}
            figure.text(EDGE / wide, middle, words[index], **style)
        top -= heights[index] + GAP
    if scale:
        edge = left + columns * (CELL + GAP)
        _bar(
            figure, scale, (edge / wide, (bottom + 0.1) / high, 0.11 / wide, min(high - HEAD - bottom - 0.1, 3.0) / high), high
        )
    if note:
        figure.text(EDGE / wide, 0.1 / high, note, fontsize=9, color=GREY, parse_math=False)
    return figure


def _aspect(panel: Panel) -> float:
    """Height over width."""
    shape = panel.image.shape[1:] if panel.image is not None else panel.heat.shape
    return shape[0] / shape[1]


def _lines(caption: str) -> int:
    return caption.count("\n") + 1 if caption else 0


def _draw(axes: "Axes", panel: Panel, scale: Scale) -> None:
    axes.set_axis_off()
    if panel.image is not None:
        pixels = np.nan_to_num(numbers(panel.image)).clip(0, 1)
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            raise ValueError(f"image must have the shape (1 or 3, H, W), got {pixels.shape}")
        if panel.heat is not None:  # grey, so that the only colours are the heat's
            pixels = pixels.mean(0, keepdims=True)
        shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        height, width = pixels.shape[1:]
        small = width <= 2 * CELL * 100
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if small else "antialiased")
    else:
        height, width = panel.heat.shape
    if panel.heat is not None:
        heat = numbers(panel.heat)
        over = panel.image is not None
        axes.imshow(
            heat,
            cmap=scale.colours,
            vmin=scale.low,
            vmax=scale.high,
            alpha=0.6 if over else 1.0,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear" if over else "nearest",
        )
    if panel.box is not None:
        left, top, right, bottom = (value - 0.5 for value in panel.box)
        frame = ([left, right, right, left, left], [top, top, bottom, bottom, top])
        axes.plot(*frame, color="white", linewidth=3)
        axes.plot(*frame, color=COLORS[1], linewidth=1.6)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _bar(figure: "Figure", scale: Scale, place: tuple[float, float, float, float], high: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # it begins at the top of the first row
    place = (place[0], 1 - HEAD / high - place[3], place[2], place[3])
    axes = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), scale.colours), cax=axes)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=GREY, labelcolor=INK)
    if scale.ends:
        bar.set_ticks([scale.low, scale.high], labels=list(scale.ends))
    bar.set_label(scale.label, fontsize=9, color=INK)
