"""Lines over steps, with what they come to written at their ends: what pictures of one run and of several share."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import EDGE, HEAD, INK, margins, new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LABEL_SIZE", "History", "arrays", "draw_labels", "draw_line", "smooth", "stack", "thin"]

History = Mapping[str, tuple[Sequence[float], Sequence[float]]]

FEW, MANY = 40, 2000  # below FEW values each is marked; above MANY the line is thinned
LABEL_SIZE = 9
LEFT, BELOW, BETWEEN = 0.84, 0.55, 0.36  # inches: for the numbers and names of the panels, and from one to the next


def arrays(history: History) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The metrics that have values, as arrays.

    Args:
        history: metric -> its steps and its values.

    Raises:
        ValueError: a metric has more steps than values, or fewer.
    """
    found = {}
    for name, (steps, values) in history.items():
        if len(steps) != len(values):
            raise ValueError(f"{name} must have as many steps as values, got {len(steps)} and {len(values)}")
        if len(steps):
            found[name] = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    return found


def stack(heights: Sequence[float], title: str, draw: "Callable[[int, Axes], float]") -> "Figure":
    """Panels above each other, on one axis of steps.

    Args:
        heights: of each, in inches.
        title: over the picture.
        draw: draws the panel of a number into its axes, and returns the inches that its labels take beside it.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new(8.0, 1.0 + sum(heights), title)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    place = {"left": LEFT, "top": HEAD if title else EDGE, "bottom": BELOW, "between": BETWEEN}
    margins(figure, right=2.0, **place)  # before the labels, which stand apart by the heights of the panels
    widths = [draw(index, axes) for index, axes in enumerate(grid)]
    margins(figure, right=max(widths) + 2 * EDGE, **place)
    grid[-1].set_xlabel("step (batches)", fontsize=10, color=INK)
    grid[-1].xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    grid[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def draw_line(axes: "Axes", steps: np.ndarray, values: np.ndarray, color: str, style: str) -> float | None:
    """Draws one metric over its steps, a noisy one pale below its moving average.

    Returns:
        the value at its end, of the average where there is one; None where no value is finite.
    """
    good = np.isfinite(values)
    if not good.any():
        return None
    few = good.sum() <= FEW
    marker = {"marker": "o", "markersize": 3.5} if few else {}
    average = smooth(values)
    if average is None:
        axes.plot(*thin(steps, values), style, color=color, linewidth=1.8, **marker)
        return float(values[good][-1])
    axes.plot(*thin(steps, values), "-", color=color, linewidth=0.8, alpha=0.28)
    axes.plot(*thin(steps, average), style, color=color, linewidth=1.8)
    return float(average[good][-1])


def smooth(values: np.ndarray) -> np.ndarray | None:
    """The moving average of a noisy line over a 25th of it, NaN where the value is; None for a line that is smooth or short."""
    good = np.isfinite(values)
    if good.sum() <= FEW:
        return None
    changes = np.diff(values[good])
    # A smooth line keeps its direction: the sum of its ups and downs is near its range. Noise goes up and down all the time.
    if np.abs(changes).sum() < 4 * np.ptp(values[good]):
        return None
    half = max(len(values) // 50, 2)
    total = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(good)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    with np.errstate(invalid="ignore"):
        return np.where(good, (total[high] - total[low]) / (count[high] - count[low]), np.nan)


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MANY points, with the least and the greatest of each stretch, so that no spike is lost."""
    values = np.where(np.isfinite(values), values, np.nan)
    if len(values) <= MANY:
        return steps, values
    edges = np.linspace(0, len(values), MANY // 2 + 1).astype(int)
    keep = []
    for low, high in pairwise(edges):
        part = values[low:high]
        if np.isnan(part).all():
            keep.append(low)  # a gap stays a gap
        else:
            keep.extend(sorted({low + int(np.nanargmin(part)), low + int(np.nanargmax(part))}))
    return steps[keep], values[keep]


def draw_labels(axes: "Axes", labels: list[tuple[float, str, str]]) -> None:
    """Each label at the end of its line, beside the axes, moved apart where they would cover each other.

    Args:
        axes: in its final place.
        labels: the value at which each begins, its text and its colour.
    """
    inches = axes.get_position().height * axes.figure.get_figheight()
    line, reach = 14 / 72 / inches, BETWEEN / 2 / inches  # a line of text, and half the way to the next panel, as shares
    heights = [line * (1 + text.count("\n")) for _, text, _ in labels]
    wanted = [_height(axes, value) for value, _, _ in labels]
    order = sorted(range(len(labels)), key=lambda index: wanted[index])
    floor, places = -reach, {}
    for index in order:  # upwards, none below the one before it
        places[index] = max(wanted[index], floor + heights[index] / 2)
        floor = places[index] + heights[index] / 2
    ceiling = 1 + reach
    for index in reversed(order):  # and back down, none above the top
        places[index] = min(places[index], ceiling - heights[index] / 2)
        ceiling = places[index] - heights[index] / 2
    for index, (_, text, color) in enumerate(labels):
        axes.text(
            1.015,
            places[index],
            text,
            transform=axes.transAxes,
            fontsize=LABEL_SIZE,
            color=color,
            verticalalignment="center",
            linespacing=1.15,
            parse_math=False,
        )


def _height(axes: "Axes", value: float) -> float:
    """Where a value lies between the bottom (0) and the top (1) of the axes."""
    axes.get_ylim()  # matplotlib fits the limits to the data only when they are asked for
    if not np.isfinite(value):
        return 0.5
    return float(axes.transAxes.inverted().transform(axes.transData.transform((0.0, value)))[1])
