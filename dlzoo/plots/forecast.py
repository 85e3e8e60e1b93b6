"""Forecasts beside what came: windows of a series, and how the error grows with the steps ahead."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, blank, clean, margins, new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Window", "error_by_step", "forecasts"]

STYLES = {"forecast": ("-", COLORS[1], 1.8), "seasonal": ("--", COLORS[2], 1.1), "ar": (":", COLORS[3], 1.3)}
STYLES |= {"climatology": ("-.", COLORS[5], 1.1), "persistence": ("--", COLORS[4], 1.1)}
WIDE, HIGH = 5.2, 2.2  # inches of a window
POINTS = 3  # a line of so few values is drawn with dots


class Window(NamedTuple):
    """A stretch of a series: what was known, what came, and what was said of it.

    Args:
        before: dates of the past, (T,).
        past: (T,); NaN where nothing is known.
        after: dates of what was to come, (H,).
        truth: (H,); NaN where nothing is known. Empty where it has yet to come.
        lines: name -> (H,), "forecast" and baselines.
    """

    before: np.ndarray
    past: np.ndarray
    after: np.ndarray
    truth: np.ndarray
    lines: Mapping[str, np.ndarray]


def forecasts(windows: Sequence[Window], title: str, columns: int = 2) -> "Figure":
    """A panel for each window: the past and the truth in one colour, a line where the past ends, forecasts in others.

    Args:
        windows: any number.
        title: what is shown.
        columns: panels in a row.
    """
    if not windows:
        return blank(title)
    columns = min(columns, len(windows))
    rows = math.ceil(len(windows) / columns)
    figure = new(columns * WIDE, rows * HIGH + HEAD + 0.5, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    margins(figure, 0.55, EDGE, HEAD + 0.3, 0.5, between=0.55)
    figure.subplots_adjust(wspace=0.16)
    for axes in grid.flat[len(windows) :]:
        axes.set_axis_off()
    for axes, window in zip(grid.flat, windows, strict=False):
        _draw(axes, window)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    height = figure.get_size_inches()[1]
    place = {"loc": "upper left", "bbox_to_anchor": (EDGE / (columns * WIDE), 1 - (HEAD - 0.08) / height)}
    figure.legend(handles, labels, ncols=len(labels), frameon=False, fontsize=9, borderaxespad=0.0, **place)
    return figure


def _draw(axes: "Axes", window: Window) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    clean(axes)
    few = len(window.after) <= POINTS
    came = len(window.truth) > 0
    # one line through past and truth; without the truth it ends with the past
    dates = np.concatenate([window.before, window.after[: len(window.truth)]])
    values = np.concatenate([window.past, window.truth])
    axes.plot(dates, values, color=COLORS[0], linewidth=1.3, label="what came" if came else "past")
    if few and came:
        axes.plot(window.after, window.truth, "o", color=COLORS[0], markersize=5)
    for name, line in window.lines.items():
        dash, color, width = STYLES.get(name, ("-", GREY, 1.0))
        axes.plot(window.after, line, dash, color=color, linewidth=width, label=name, marker="o" if few else "", markersize=5)
    if len(window.before):
        axes.axvline(window.before[-1], color=GREY, linewidth=0.8)
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def error_by_step(errors: Mapping[str, np.ndarray], title: str) -> "Figure":
    """A line for each name over the steps ahead; its mean stands beside its name. Of a single step, bars.

    Args:
        errors: name -> (H,).
        title: of what.
    """
    if not errors:
        return blank(title)
    steps = max(map(len, errors.values()))
    ordered = sorted(errors.items(), key=lambda item: np.mean(item[1]))
    figure = new(8.0, 3.6 if steps > 1 else 1.2 + 0.4 * len(errors), title)
    axes = figure.subplots()
    clean(axes)
    names = {name: f"{name} {np.mean(values):.4g}" for name, values in ordered}
    if steps == 1:
        margins(figure, 1.6, 0.8, HEAD, 0.35)
        colors = [STYLES.get(name, ("", GREY, 0))[1] for name, _ in ordered]
        places = np.arange(len(ordered))[::-1]
        axes.barh(places, [values[0] for _, values in ordered], color=colors, height=0.6)
        axes.set_yticks(places, list(names.values()))
        axes.grid(False)
        return figure
    margins(figure, 0.65, 2.1, HEAD, 0.55)
    for name, values in ordered:
        dash, color, width = STYLES.get(name, ("-", GREY, 1.0))
        axes.plot(np.arange(1, len(values) + 1), values, dash, color=color, linewidth=width, label=names[name])
    axes.set_xlabel("steps ahead", fontsize=10, color=INK)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, title="mean over the steps")
    return figure
