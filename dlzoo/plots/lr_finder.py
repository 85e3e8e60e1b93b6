"""The picture of a range test: the loss over the learning rate, and the rates that are of use."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, GREY, HEAD, INK, clean, margins, new

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["lr_finder"]

TOP = 1.5  # how far above the first loss, in falls of the loss, the picture goes


def lr_finder(
    rates: Sequence[float],
    losses: Sequence[float],
    smooth: Sequence[float],
    lowest: float | None,
    suggested: float | None,
    title: str,
    note: str = "",
) -> "Figure":
    """The losses as dots, their smoothed line, the rate of the smallest loss and the suggestion as lines with their values.

    Args:
        rates: of the steps.
        losses: of the steps; those that are not finite are left out.
        smooth: as many as there are finite losses before the first that is not, or fewer.
        lowest: the rate at which the loss is smallest; None where it tells nothing.
        suggested: the rate to use.
        title: what was trained, on what.
        note: in place of the suggestion, where there is none.
    """
    figure = new(8.0, 4.2, title)
    axes = figure.subplots()
    margins(figure, left=0.84, right=0.3, top=HEAD + 0.3, bottom=0.62)
    clean(axes)
    x, y = np.asarray(rates, dtype=float)[: len(losses)], np.asarray(losses, dtype=float)[: len(rates)]
    seen = np.isfinite(y)
    axes.plot(x[seen], y[seen], ".", color=COLORS[0], alpha=0.45, markersize=5, markeredgewidth=0)
    axes.plot(x[: len(smooth)], smooth, color=COLORS[0], linewidth=2)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate, rising with every step", fontsize=10, color=INK)
    axes.set_ylabel("training loss", fontsize=10, color=INK)
    if len(smooth):
        low, first = min(smooth), float(np.mean(y[: min(max(3, len(smooth) // 10), len(smooth))]))
        fall = max(first - low, 0.1 * abs(first), 1e-12)
        bottom = max(min(low - 0.1 * fall, float(y[seen].min()) - 0.05 * fall), low - 0.6 * fall)
        axes.set_ylim(bottom, min(float(y[seen].max()), first + TOP * fall) + 0.1 * fall)
    if lowest is not None and suggested is not None:
        span = x[-1] / x[0]
        axes.set_xlim(x[0] / span**0.05, max(x[-1] * span**0.05, lowest * span**0.27))  # room for the text beside the line
        lines = (
            (suggested, f"suggested: {suggested:.2g}", "right", COLORS[1]),
            (lowest, f"smallest loss: {lowest:.2g}", "left", GREY),
        )
        for rate, text, side, color in lines:
            axes.axvline(rate, color=color, linewidth=1.8, linestyle="-" if side == "right" else (0, (4, 3)))
            place = {"transform": axes.get_xaxis_transform(), "horizontalalignment": side, "verticalalignment": "bottom"}
            axes.text(rate * (1.2 if side == "right" else 1 / 1.2), 1.03, text, fontsize=10, color=color, **place)
    else:
        axes.text(0.0, 1.03, note, transform=axes.transAxes, fontsize=10, color=COLORS[1], verticalalignment="bottom")
    return figure
