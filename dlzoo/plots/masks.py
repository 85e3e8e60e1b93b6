"""Masks of labels over the pictures that they belong to: the truth, the prediction, and where they differ."""

import colorsys
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, blank, new, numbers, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["mask_rows", "overlay", "palette"]

# told apart side by side, in this order; further ones go round the colour wheel
FIRST = (*COLORS[:4], "#F0E442", "#B2DF8A", "#E31A1C", "#8C564B", "#6A3D9A", "#1B1B1B", "#56B4E9", "#FB9A99")
WRONG = np.array([0.84, 0.15, 0.16])
STRENGTH = 0.6  # of the colour over the picture
CELL = 2.3  # inches a picture is wide
LINE = 0.2  # inches from one line of the legend to the next


def palette(count: int) -> np.ndarray:
    """A colour for each of `count` classes: (count, 3), from 0 to 1."""
    from matplotlib.colors import to_rgb

    wheel = (colorsys.hsv_to_rgb(0.618034 * i % 1, 0.55, 0.95 - 0.2 * (i % 3)) for i in range(max(0, count - len(FIRST))))
    return np.array([*map(to_rgb, FIRST[:count]), *wheel])


def overlay(image: "Tensor | np.ndarray", mask: "Tensor | np.ndarray", colors: np.ndarray) -> np.ndarray:
    """A picture under the colours of its mask; a label without a colour leaves it grey.

    Args:
        image: values from 0 to 1.
        mask: labels.
        colors: (K, 3), from `palette`.

    Shape:
        (C, H, W) with C = 1 (grey) or 3 (colour), (H, W) -> (H, W, 3).
    """
    pixels = np.nan_to_num(numbers(image), nan=0.0).clip(0, 1)
    grey = np.repeat(pixels.mean(0)[:, :, None], 3, 2)  # (H, W, 3): colours of its own would mix with those of the mask
    labels = numbers(mask).astype(int)
    known = (labels >= 0) & (labels < len(colors))
    laid = STRENGTH * colors[np.where(known, labels, 0)] + (1 - STRENGTH) * grey
    return np.where(known[:, :, None], laid, grey)


def mask_rows(
    images: "Tensor | np.ndarray",
    truth: "Tensor | np.ndarray",
    predicted: "Tensor | np.ndarray | None",
    classes: Sequence[str],
    title: str,
    captions: Sequence[str] = (),
) -> "Figure":
    """A row for each picture: itself, the truth, and where there is one the prediction and its mistakes in red.

    Args:
        images: values from 0 to 1.
        truth: labels; what is no class is left out everywhere.
        predicted: labels, or None.
        classes: the names, in order; they stand below with their colours.
        title: what is shown.
        captions: one for each picture, or none at all; it stands beside its row.

    Shape:
        images (N, C, H, W) with C = 1 or 3; truth and predicted (N, H, W).
    """
    if not len(images):
        return blank(title)
    colors = palette(len(classes))
    heads = ["picture", "truth"] + ([] if predicted is None else ["prediction", "mistakes"])
    cell = CELL * images.shape[2] / images.shape[3]  # inches a picture is high
    beside = 0.25 if captions else 0.0
    places, lines = _legend(classes, beside + len(heads) * (CELL + 0.08))
    wide = beside + len(heads) * (CELL + 0.08) - 0.08 + 2 * EDGE
    high = HEAD + 0.25 + len(images) * (cell + 0.08) + 0.1 + lines * LINE + 0.1
    figure = new(wide, high, title)
    for row, (image, labels) in enumerate(zip(images, truth, strict=True)):
        pixels = np.nan_to_num(numbers(image), nan=0.0).clip(0, 1).transpose(1, 2, 0)
        shown = [np.repeat(pixels, 3 // pixels.shape[2], 2), overlay(image, labels, colors)]
        if predicted is not None:
            shown += [overlay(image, predicted[row], colors), _mistakes(image, labels, predicted[row], len(classes))]
        top = HEAD + 0.25 + row * (cell + 0.08)
        for column, picture in enumerate(shown):
            left = EDGE + beside + column * (CELL + 0.08)
            axes = figure.add_axes((left / wide, 1 - (top + cell) / high, CELL / wide, cell / high))
            axes.imshow(picture, interpolation="antialiased", aspect="auto")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(heads[column], fontsize=10, color=GREY, pad=4)
        if captions:
            style = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 9, "color": INK, "parse_math": False}
            figure.text((EDGE + 0.1) / wide, 1 - (top + cell / 2) / high, captions[row], **style)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, wide), ylim=(0, high))
    axes.set_axis_off()
    for (x, line), name, color in zip(places, classes, colors, strict=True):
        y = 0.1 + (lines - line - 0.5) * LINE
        axes.fill([x, x + 0.13, x + 0.13, x], [y - 0.065, y - 0.065, y + 0.065, y + 0.065], color=color)
        axes.text(x + 0.19, y, name, fontsize=9, color=INK, va="center_baseline", parse_math=False)
    return figure


def _mistakes(image: "Tensor", truth: "Tensor", predicted: "Tensor", classes: int) -> np.ndarray:
    """(H, W, 3): the picture, red where a labelled pixel is taken for something else."""
    labels, found = numbers(truth).astype(int), numbers(predicted).astype(int)
    wrong = (labels != found) & (labels >= 0) & (labels < classes)
    return overlay(image, np.where(wrong, 0, -1), WRONG[None])


def _legend(names: Sequence[str], room: float) -> tuple[list[tuple[float, int]], int]:
    """Where each name stands, in inches from the left and in lines from above; and how many lines there are."""
    places, x, line = [], EDGE, 0
    for name in names:
        width = 0.19 + text_width(name, 9) + 0.2
        if x > EDGE and x + width > room:
            x, line = EDGE, line + 1
        places.append((x, line))
        x += math.ceil(100 * width) / 100
    return places, line + 1
