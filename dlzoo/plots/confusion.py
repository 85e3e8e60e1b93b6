"""The confusion matrix: what was taken for what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import EDGE, GREY, HEAD, INK, blank, clip_text, margins, new, numbers, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["Groups", "confusion"]

WITH_COUNTS = 20  # classes up to which every cell holds its count
NAMED = 120  # classes up to which every one is named
FIGURE_SPACE = "\N{FIGURE SPACE}"  # as wide as a digit
WORST = 12  # confusions listed beside a matrix that is too large for counts
GROUP_SIZE = 8  # points of the groups' names


@dataclass(frozen=True)
class Groups:
    """Groups that the classes form, such as the superclasses of CIFAR-100.

    Args:
        names: of the groups.
        of: the group of each class, as a position in `names`.
    """

    names: Sequence[str]
    of: Sequence[int]

    def counts(self, matrix: "Tensor | np.ndarray") -> np.ndarray:
        """The confusion matrix of the groups: (K, K) -> (G, G)."""
        member = np.eye(len(self.names))[list(self.of)]  # (K, G)
        return member.T @ numbers(matrix) @ member


def confusion(matrix: "Tensor | np.ndarray", classes: Sequence[str], title: str, groups: Groups | None = None) -> "Figure":
    """Rows are the true classes, columns the predicted ones; the colour is the share of the row.

    Up to 20 classes each cell shows its count. Beyond, the most frequent confusions are listed beside the matrix, and the
    colours follow the square root, since a class of many has its mistakes spread thin.

    Args:
        matrix: counts.
        classes: the names, in order.
        title: of which model, on which data.
        groups: puts the classes of each group side by side, in a frame with its name.

    Shape:
        matrix: (K, K), the true class first.

    Raises:
        ValueError: the matrix is not square, holds a negative count, or there is another number of names or of groups.
    """
    counts = numbers(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"matrix must be square, got shape {tuple(counts.shape)}")
    if len(classes) != len(counts):
        raise ValueError(f"classes must be {len(counts)} names, got {len(classes)}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("matrix must hold counts, got a value that is negative or not finite")
    if groups and (len(groups.of) != len(classes) or not 0 <= min(groups.of) <= max(groups.of) < len(groups.names)):
        raise ValueError(f"groups must name one of {len(groups.names)} groups for each of {len(classes)} classes")
    total = counts.sum()
    if not total:
        return blank(title)
    if groups:
        order = np.argsort(groups.of, kind="stable")
        counts, classes = counts[order][:, order], [classes[index] for index in order]
    k = len(counts)
    side = min(max(0.55 * k, 2.6), 6.6) if k <= WITH_COUNTS else min(max(0.115 * k, 6.0), 13.0)  # inches of the square
    large = k > WITH_COUNTS
    names = [clip_text(name, 20 if large else 26) for name in classes]
    size = 9 if not large else 7 if k <= 60 else 6
    longest = max(text_width(name, size) for name in names)
    lines = _worst(counts, [clip_text(name, 24) for name in classes]) if large else []
    slant = 90 if large else 45 if longest > 0.9 * side / k else 0
    below = {0: 0.15, 45: 0.71 * longest + 0.12, 90: longest}[slant]  # inches of the names below
    aside = max(text_width(name, GROUP_SIZE) for name in groups.names) + 0.15 if groups else 0.0  # of the groups' names
    beside = aside + (max(0.3 + max(text_width(line, 9) for line in lines), 3.1) if large else 1.0)  # all to the right
    place = {"left": longest + 0.5, "right": beside + EDGE, "top": (HEAD if title else EDGE) + 0.3, "bottom": below + 0.42}
    figure = new(place["left"] + side + place["right"], place["top"] + side + place["bottom"], title)
    axes = figure.add_subplot()
    margins(figure, **place)
    _draw_matrix(axes, side, aside, counts, names, size, slant)
    right = np.trace(counts)
    said = f"{right:,.0f} of {total:,.0f} right: {100 * right / total:.1f} %"
    if groups:
        _draw_groups(axes, side, groups)
        said += f"; the right group: {100 * np.trace(groups.counts(numbers(matrix))) / total:.1f} %"
    axes.set_title(said, fontsize=10, color=GREY, loc="left", pad=8)
    if large:
        style = {"transform": axes.transAxes, "verticalalignment": "top", "parse_math": False, "color": INK}
        edge = 1 + (0.3 + aside) / side
        axes.text(edge, 1.0, "most frequent mistakes", fontsize=10, fontweight="bold", **style)
        axes.text(edge, 1 - 0.3 / side, "\n".join(lines), fontsize=9, linespacing=1.5, **style)
    return figure


def _draw_groups(axes: "Axes", side: float, groups: Groups) -> None:
    """A frame round each group's own square, its name to the right, and faint lines between the groups."""
    from matplotlib.patches import Rectangle

    sizes = np.bincount(groups.of, minlength=len(groups.names))
    ends = np.cumsum(sizes) - 0.5
    for name, count, end in zip(groups.names, sizes, ends, strict=True):
        if not count:
            continue
        start = end - count
        axes.axhline(end, color=GREY, linewidth=0.4, alpha=0.5)
        axes.axvline(end, color=GREY, linewidth=0.4, alpha=0.5)
        axes.add_patch(Rectangle((start, start), count, count, fill=False, edgecolor=INK, linewidth=0.9))
        x = sum(sizes) - 0.5 + 0.08 * sum(sizes) / side
        style = {"fontsize": GROUP_SIZE, "color": INK, "parse_math": False}
        axes.text(x, (start + end) / 2, name, horizontalalignment="left", verticalalignment="center", **style)


def _draw_matrix(
    axes: "Axes", side: float, aside: float, counts: np.ndarray, names: list[str], size: float, slant: int
) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    k = len(counts)
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)  # a class with no sample has no shares
    large = k > WITH_COUNTS
    palette = colormaps["Blues"].with_extremes(bad="#EEEEEE")
    image = axes.imshow(shares, cmap=palette, norm=PowerNorm(0.5 if large else 1.0, 0, 1), interpolation="nearest")
    if large:  # below the list of mistakes
        box, across = (1 + (0.3 + aside) / side, 0.6 / side, 2.6 / side, 0.16 / side), "horizontal"
    else:
        box, across = (1 + (0.15 + aside) / side, 0.08, 0.2 / side, 0.84), "vertical"
    ticks = [0, 0.05, 0.25, 0.5, 1] if large else [0, 0.25, 0.5, 0.75, 1]
    bar = axes.figure.colorbar(
        image, cax=axes.inset_axes(box), orientation=across, ticks=ticks, format=lambda share, _: f"{100 * share:g}"
    )
    bar.set_label("share of the true class (%)", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    step = max(1, -(-k // NAMED))
    ticks = np.arange(0, k, step)
    turn = {"rotation": slant} | ({"ha": "right", "rotation_mode": "anchor"} if slant == 45 else {})
    axes.set_xticks(ticks, [names[tick] for tick in ticks], fontsize=size, parse_math=False, **turn)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class", fontsize=10, color=INK)
    axes.set_ylabel("true class", fontsize=10, color=INK)
    axes.tick_params(length=0 if not large else 2, color=GREY, labelcolor=INK)
    axes.spines[:].set_visible(False)
    if large:
        return
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.55 else INK
            size = 9 if count < 10_000 else 7
            axes.text(
                column,
                row,
                f"{count:.0f}",
                fontsize=size,
                color=color,
                horizontalalignment="center",
                verticalalignment="center",
            )


def _worst(counts: np.ndarray, names: list[str]) -> list[str]:
    """The cells off the diagonal with the largest counts, in words."""
    mistakes = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:WORST]
    worst = [divmod(int(index), len(counts)) for index in order if mistakes.flat[index]]
    digits = len(f"{mistakes.max():,.0f}")
    lines = [
        f"{counts[true, found]:>{digits},.0f}".replace(" ", FIGURE_SPACE) + f"  {names[true]} as {names[found]}"
        for true, found in worst
    ]
    return lines or ["none"]
