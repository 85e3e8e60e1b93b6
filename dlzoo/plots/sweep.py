"""A sweep in one picture: how the best value came about, and how each parameter bears on the value."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, blank, clean, clip_text, new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["sweep"]

DONE, BEST, BAD = COLORS[0], COLORS[1], COLORS[1]
DECADES = 20.0  # values or parameters that span more than this factor are drawn on a log scale
WIDTH, TOP, PANEL = 8.6, 2.5, 2.1  # inches: the figure, the history, one parameter
LEFT, BELOW, GAP = 0.78, 0.62, 0.3  # inches: for the numbers at a panel's left, for those below it, between two panels
COLUMNS = 3
FEW = 6  # different numbers that stand beside each other like words
LETTER, SHORTEST = 0.085, 6  # inches of a letter below a panel, and letters of a word that is cut


def sweep(
    params: Mapping[str, Sequence[float | str]],
    values: Sequence[float | None],
    statuses: Sequence[str],
    jobs: Sequence[int],
    metric: str,
    mode: str,
    title: str,
) -> "Figure":
    """The value of each job and the best so far; below, the value over each parameter.

    Finished jobs are full, pruned ones hollow, failed ones crosses at the edge of the worse side. The best is ringed.

    Args:
        params: parameter -> its value in each job.
        values: of each job; None where it has none.
        statuses: of each job: finished, pruned, failed, ...
        jobs: the number of each.
        metric: the name of the value.
        mode: "min" or "max": which way is better.
        title: over the picture.

    Raises:
        ValueError: the lists are not of one length, or the mode is neither.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be min or max, got {mode!r}")
    lengths = {"values": len(values), "statuses": len(statuses), **{key: len(column) for key, column in params.items()}}
    for name, length in lengths.items():
        if length != len(jobs):
            raise ValueError(f"{name} must have as many entries as jobs, got {length} and {len(jobs)}")
    value = np.array([np.nan if one is None else float(one) for one in values])
    value[~np.isfinite(value)] = np.nan
    if np.isnan(value).all():
        return blank(title, "no job has a value yet")
    shown = {key: column for key, column in params.items() if len(set(column)) > 1}
    columns = min(COLUMNS, max(len(shown), 1)) if len(shown) != 4 else 2
    rows = -(-len(shown) // columns)
    height = (HEAD if title else EDGE) + TOP + BELOW + rows * (PANEL + BELOW) + 0.05
    figure = new(WIDTH, height, title)
    kind = np.array([status if status in ("finished", "pruned", "failed") else "" for status in statuses])
    top = height - (HEAD if title else EDGE) - TOP
    history = _axes(figure, LEFT, top, WIDTH - LEFT - 1.5, TOP)
    scale = _value_scale(value, kind)
    _history(history, np.asarray(jobs), value, kind, metric, mode, scale)
    width = (WIDTH - LEFT - EDGE - (columns - 1) * (LEFT * 0.55 + GAP)) / columns
    for index, (key, column) in enumerate(shown.items()):
        row, place = divmod(index, columns)
        axes = _axes(
            figure, LEFT + place * (width + LEFT * 0.55 + GAP), top - (row + 1) * (PANEL + BELOW), width, PANEL, history
        )
        _parameter(axes, key, column, value, kind, mode)
        if place == 0:
            axes.set_ylabel(clip_text(metric, 24), fontsize=10, color=INK)
    return figure


def _axes(figure: "Figure", left: float, bottom: float, width: float, height: float, like: "Axes | None" = None) -> "Axes":
    """Axes at a place in inches, with the heights of others if they are given."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up), sharey=like)
    clean(axes)
    return axes


def _value_scale(value: np.ndarray, kind: np.ndarray) -> str:
    finite = value[np.isfinite(value) & (kind != "failed")]
    return "log" if len(finite) and finite.min() > 0 and finite.max() > DECADES * finite.min() else "linear"


def _history(axes: "Axes", jobs: np.ndarray, value: np.ndarray, kind: np.ndarray, metric: str, mode: str, scale: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    axes.set_yscale(scale)
    if scale == "log":
        wide = np.nanmax(value) > 1000 * np.nanmin(value)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda number, _: f"{number:g}")
        axes.minorticks_off()
    done = kind == "finished"
    counted = np.where(done, value, np.nan)
    best = (np.fmin if mode == "min" else np.fmax).accumulate(counted) if done.any() else counted
    # the line goes on to the last job, flat: that it does is the point
    axes.step(np.append(jobs, jobs[-1] + 0.5), np.append(best, best[-1]), where="post", color=GREY, linewidth=1.4, zorder=1)
    _dots(axes, jobs, value, kind, mode)
    axes.set_ylabel(clip_text(metric, 24), fontsize=10, color=INK)
    axes.set_xlabel("job", fontsize=10, color=INK)
    axes.set_xlim(jobs[0] - 0.5, jobs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    if done.any():
        chosen = int((np.nanargmin if mode == "min" else np.nanargmax)(counted))
        lines = [("best", BEST), (f"#{jobs[chosen]}: {counted[chosen]:.4g}", BEST)]
    else:
        lines = []
    counts = {name: int((kind == name).sum()) for name in ("finished", "pruned", "failed")}
    signs = {"finished": "\u25cf", "pruned": "\u25cb", "failed": "\u00d7"}
    lines += [("", INK), *((f"{signs[name]} {count} {name}", INK) for name, count in counts.items() if count)]
    for index, (line, color) in enumerate(lines):
        axes.text(1.02, 1 - 0.085 * index, line, transform=axes.transAxes, fontsize=9, color=color, va="top", parse_math=False)


def _dots(axes: "Axes", x: np.ndarray, value: np.ndarray, kind: np.ndarray, mode: str) -> None:
    from matplotlib.transforms import blended_transform_factory

    done, pruned, failed = kind == "finished", kind == "pruned", kind == "failed"
    axes.plot(x[pruned], value[pruned], "o", markersize=5, markerfacecolor="white", markeredgecolor=GREY, zorder=2)
    axes.plot(x[done], value[done], "o", markersize=5.5, color=DONE, alpha=0.85, markeredgewidth=0, zorder=3)
    if done.any():
        counted = np.where(done, value, np.nan)
        chosen = int((np.nanargmin if mode == "min" else np.nanargmax)(counted))
        axes.plot(
            x[chosen],
            value[chosen],
            "o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=BEST,
            markeredgewidth=1.8,
            zorder=4,
        )
    if failed.any():
        edge = np.full(failed.sum(), 0.97 if mode == "min" else 0.03)
        across = blended_transform_factory(axes.transData, axes.transAxes)
        axes.plot(x[failed], edge, "x", markersize=6.5, color=BAD, markeredgewidth=1.6, transform=across, zorder=3)


def _parameter(axes: "Axes", name: str, column: Sequence[float | str], value: np.ndarray, kind: np.ndarray, mode: str) -> None:
    numbers = all(isinstance(one, int | float) for one in column)
    if numbers and len(set(column)) > FEW:
        x = np.asarray(column, dtype=float)
        if x.min() > 0 and x.max() > DECADES * x.min():
            axes.set_xscale("log")
        else:
            axes.locator_params(axis="x", nbins=5)
            axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")
    else:
        kinds = sorted(set(column)) if numbers else list(dict.fromkeys(column))
        x = np.array([kinds.index(one) for one in column], dtype=float)
        words = [f"{one:g}" if numbers else str(one) for one in kinds]
        room = int(_inches(axes) / LETTER)  # letters in a line below the panel
        every = -(-len(words) * (min(SHORTEST, max(map(len, words))) + 1) // room)
        longest = max(SHORTEST, room // len(words[::every]) - 1)
        axes.set_xticks(range(0, len(words), every), [clip_text(word, longest) for word in words[::every]])
        axes.set_xlim(-0.5, len(words) - 0.5)
        # jobs of one value stand beside each other, in their order
        x = x + (np.arange(len(x)) / max(len(x) - 1, 1) - 0.5) * 0.4
    _dots(axes, x, value, kind, mode)
    axes.set_xlabel(clip_text(name, int(_inches(axes) / LETTER)), fontsize=10, color=INK)


def _inches(axes: "Axes") -> float:
    """The width of the axes."""
    return float(axes.get_position().width * axes.figure.get_figwidth())
