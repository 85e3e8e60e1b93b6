"""Learning curves: how losses, accuracies and the learning rate went, one panel each, on one axis of steps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, GREY, INK, blank, clean, clip_text, text_width
from dlzoo.plots.lines import LABEL_SIZE, History, arrays, draw_labels, draw_line, smooth, stack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves"]

STAGES = {"train": COLORS[0], "val": COLORS[1], "test": COLORS[2]}
LINES = ("-", "--", ":", "-.")  # metrics of one stage in one panel
SMALLER_IS_BETTER = ("loss", "error", "perplexity", "ppl")
DECADES = 100.0  # a loss that spans more than this factor is drawn on a log scale


def curves(history: History, title: str) -> "Figure":
    """One panel for losses, one for accuracies, one for learning rates, then one for each other metric.

    The last value of every line stands at its end, and the best one of validation is ringed. A noisy line is drawn pale below
    its moving average. Values that are not finite are left out, and told.

    Args:
        history: metric, such as "val/loss", -> its steps and its values.
        title: what was trained, on what.

    Raises:
        ValueError: a metric has more steps than values, or fewer.
    """
    found = arrays(history)
    if not found:
        return blank(title)
    panels = {
        panel: {name: found[name] for name in found if _panel(name) == panel}
        for panel in sorted({_panel(name) for name in found}, key=_rank)
    }
    heights = [1.5 if panel == "learning rate" else 2.6 for panel in panels]
    drawn = list(panels.items())
    return stack(heights, title, lambda index, axes: _draw_panel(axes, *drawn[index]))


def _panel(name: str) -> str:
    metric = name.rpartition("/")[2].lower()
    if metric == "lr" or metric.startswith(("lr-", "lr_")) or name.lower().startswith(("lr-", "lr/")):
        return "learning rate"
    if "loss" in metric:
        return "loss"
    if metric.startswith(("acc", "top1", "top5")) or metric.endswith("acc"):
        return "accuracy"
    if metric.startswith("mae_"):  # of a baseline: beside the network's own
        return "mae"
    return metric


def _rank(panel: str) -> tuple[int, str]:
    return {"loss": 0, "accuracy": 1, "learning rate": 3}.get(panel, 2), panel


def _draw_panel(axes: "Axes", panel: str, series: dict[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """Draws one panel; the inches that the labels beside it take."""
    from matplotlib.transforms import blended_transform_factory

    clean(axes)
    finite = np.concatenate([values[np.isfinite(values)] for _, values in series.values()])
    share = panel == "accuracy" and len(finite) and finite.min() >= 0 and finite.max() <= 1
    axes.set_ylabel(f"{panel} (%)" if share else clip_text(panel, 30), fontsize=10, color=INK)
    axes.yaxis.set_label_coords(0.22, 0.5, blended_transform_factory(axes.figure.dpi_scale_trans, axes.transAxes))
    if panel == "loss" and len(finite) and finite.min() > 0 and finite.max() > DECADES * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    colors = _colors(series)
    seen: dict[str, int] = {}
    labels = []
    for name, (steps, values) in series.items():
        stage = name.partition("/")[0]
        style = LINES[seen.setdefault(stage, 0) % len(LINES)]
        seen[stage] += 1
        end = draw_line(axes, steps, values, colors[name], style)
        label = _label(name, series)
        if end is None:
            labels.append((np.nan, f"{label}: no finite value", colors[name]))
            continue
        text = f"{label} {_number(end, share)}"
        if smooth(values) is not None:
            text += " (average)"
        if panel == "learning rate" and len(values) > 1:
            text += f"\npeak {np.nanmax(values):.3g}"
        best = _best(panel, name, steps, values)
        if best is not None:
            axes.plot(*best, "o", markersize=8, markerfacecolor="none", markeredgecolor=colors[name], markeredgewidth=1.6)
            text += f"\nbest {_number(best[1], share)} at {best[0]:,.0f}"
        labels.append((end, text, colors[name]))
    draw_labels(axes, labels)
    _tell_not_finite(axes, series)
    return max(text_width(text, LABEL_SIZE) for _, text, _ in labels)


def _colors(series: Mapping[str, object]) -> dict[str, str]:
    """The stage gives the colour; a metric of no stage takes the first one that is free."""
    free = [color for color in COLORS if color not in STAGES.values()]
    if not any(name.partition("/")[0] in STAGES for name in series):
        free = list(COLORS)
    others = [name for name in series if name.partition("/")[0] not in STAGES]
    taken = {name: free[index % len(free)] for index, name in enumerate(others)}
    return {name: taken.get(name) or STAGES[name.partition("/")[0]] for name in series}


def _label(name: str, series: Mapping[str, object]) -> str:
    """The stage alone where that tells the lines of the panel apart."""
    stage = name.partition("/")[0]
    return stage if sum(other.partition("/")[0] == stage for other in series) == 1 else clip_text(name, 36)


def _best(panel: str, name: str, steps: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """Step and value of the best, for what is selected by: validation."""
    if name.partition("/")[0] != "val" or len(values) < 2:
        return None
    if any(word in panel for word in SMALLER_IS_BETTER):
        index = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
    elif panel == "accuracy":
        index = int(np.nanargmax(np.where(np.isfinite(values), values, np.nan)))
    else:
        return None  # which way is better is not known
    return float(steps[index]), float(values[index])


def _number(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:.3g}"


def _tell_not_finite(axes: "Axes", series: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    bad = [steps[~np.isfinite(values)] for steps, values in series.values()]
    count = sum(len(steps) for steps in bad)
    if not count:
        return
    first = min(steps.min() for steps in bad if len(steps))
    axes.axvline(first, color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
    text = f"{count} value{'s' * (count > 1)} not finite, from step {first:,.0f}"
    axes.text(0.5, 0.97, text, transform=axes.transAxes, fontsize=9, color=INK, ha="center", va="top", backgroundcolor="white")
