"""The same metric of several runs, a line each: what a change to a recipe has done."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, INK, blank, clean, clip_text, text_width
from dlzoo.plots.lines import LABEL_SIZE, History, arrays, draw_labels, draw_line, stack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["compared"]

STYLES = ("-", "--", ":", "-.")  # the colours come round with the next of them
PANEL = 2.6  # inches
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
    found = {run: arrays(history) for run, history in runs.items()}
    shown = [metric for metric in metrics if any(metric in series for series in found.values())]
    if not shown:
        return blank(title)

    def draw(index: int, axes: "Axes") -> float:
        metric, labels = shown[index], []
        clean(axes)
        axes.set_ylabel(clip_text(metric, 30), fontsize=10, color=INK)
        for place, (run, series) in enumerate(found.items()):
            if metric not in series:
                continue
            color, style = COLORS[place % len(COLORS)], STYLES[place // len(COLORS) % len(STYLES)]
            end = draw_line(axes, *series[metric], color, style)
            said = "no finite value" if end is None else f"{end:.4g}"
            labels.append((np.nan if end is None else end, f"{clip_text(run, LETTERS)}: {said}", color))
        draw_labels(axes, labels)
        return max(text_width(text, LABEL_SIZE) for _, text, _ in labels)

    return stack([PANEL] * len(shown), title, draw)
