"""The same metric of several runs, a line each: what a change to a recipe has done."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, HEAD, INK, blank, clean, clip_text, margins, new, text_width
from dlzoo.plots.lines import LABEL_SIZE, draw_labels, draw_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compared"]

History = Mapping[str, tuple[Sequence[float], Sequence[float]]]

STYLES = ("-", "--", ":", "-.")  # the colours come round with the next of them
PANEL, LEFT, BELOW, BETWEEN = 2.6, 0.84, 0.55, 0.36  # inches: a panel, what stands at its left and below it, to the next one
LETTERS = 40  # of a run's name


def compared(runs: Mapping[str, History], metrics: Sequence[str], title: str) -> "Figure":
    """A panel for each metric and in it a line for each run, with its name and its last value at its end. Noisy lines are drawn
    pale below their moving averages.

    Args:
        runs: what each is called -> metric -> its steps and its values. A run that lacks a metric is left out of its panel.
        metrics: such as "val/loss", a panel each; those that no run has are left out.
        title: over the picture.

    Raises:
        ValueError: a metric has more steps than values, or fewer.
    """
    from matplotlib.ticker import MaxNLocator

    for history in runs.values():
        for name, (steps, values) in history.items():
            if len(steps) != len(values):
                raise ValueError(f"{name} must have as many steps as values, got {len(steps)} and {len(values)}")
    shown = [metric for metric in metrics if any(len(history.get(metric, ((), ()))[0]) for history in runs.values())]
    if not shown:
        return blank(title)
    figure = new(8.0, 1.0 + PANEL * len(shown), title)
    grid = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    place = {"left": LEFT, "top": HEAD if title else EDGE, "bottom": BELOW, "between": BETWEEN}
    margins(figure, right=2.0, **place)  # before the labels, which stand apart by the heights of the panels
    widths = []
    for axes, metric in zip(grid, shown, strict=True):
        clean(axes)
        axes.set_ylabel(clip_text(metric, 30), fontsize=10, color=INK)
        labels = []
        for index, (run, history) in enumerate(runs.items()):
            steps, values = (np.asarray(part, dtype=float) for part in history.get(metric, ((), ())))
            color, style = COLORS[index % len(COLORS)], STYLES[index // len(COLORS) % len(STYLES)]
            end = draw_line(axes, steps, values, color, style)
            if end is not None:
                labels.append((end, f"{clip_text(run, LETTERS)}: {end:.4g}", color))
        draw_labels(axes, labels, BETWEEN / 2)
        widths += [text_width(text, LABEL_SIZE) for _, text, _ in labels]
    margins(figure, right=max(widths, default=0.0) + 2 * EDGE, **place)
    grid[-1].set_xlabel("step (batches)", fontsize=10, color=INK)
    grid[-1].xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    grid[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure
