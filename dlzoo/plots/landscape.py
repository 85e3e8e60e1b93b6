"""The loss around a network: as a surface, and as a map with the way that training took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, GREY, HEAD, INK, new, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["Terrain", "landscape"]

LEVELS = 16
SIDE = 3.9  # inches of a map


@dataclass(frozen=True)
class Terrain:
    """One network's surface.

    Args:
        first: (N,), steps along the first direction.
        second: (M,), along the second.
        losses: (N, M).
        name: of the network.
        axes: what the directions are.
        places: (T, 2), where the checkpoints of a training lie; None draws no way.
    """

    first: "Tensor | np.ndarray"
    second: "Tensor | np.ndarray"
    losses: "Tensor | np.ndarray"
    name: str = ""
    axes: tuple[str, str] = ("first random direction", "second random direction")
    places: "Tensor | np.ndarray | None" = None


def landscape(terrains: Sequence[Terrain], title: str, note: str = "") -> "Figure":
    """For each network its surface above its map, all in the same colours, on a scale of equal factors of the loss.

    Args:
        terrains: one or more.
        title: what was trained, on what.
        note: one line at the foot.

    Raises:
        ValueError: nothing to draw, or no finite loss.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    if not terrains:
        raise ValueError("terrains must be at least one, got none")
    heights = [_heights(terrain) for terrain in terrains]
    low, high = min(float(np.min(part)) for part in heights), max(float(np.max(part)) for part in heights)
    high = max(high, low * 1.01)
    norm, across = LogNorm(low, high), SIDE + 0.75
    wide, tall = 0.2 + len(terrains) * across + 0.9, HEAD + 3.3 + SIDE + 1.0 + (0.25 if note else 0.0)
    figure = new(wide, tall, title)
    for index, (terrain, part) in enumerate(zip(terrains, heights, strict=True)):
        left = 0.2 + index * across
        solid = figure.add_axes((left / wide, (tall - HEAD - 3.4) / tall, across / wide, 3.4 / tall), projection="3d")
        _solid(solid, terrain, part, norm, (low, high))
        flat = figure.add_axes(((left + 0.65) / wide, (0.62 + (0.25 if note else 0.0)) / tall, SIDE / wide, SIDE / tall))
        _flat(flat, terrain, part, norm)
    place = ((wide - 0.78) / wide, (0.62 + (0.25 if note else 0.0)) / tall, 0.12 / wide, SIDE / tall)
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), cax=figure.add_axes(place))
    ticks = _ticks(low, high)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=GREY, labelcolor=INK)
    bar.set_label("loss", fontsize=9, color=INK)
    if note:
        figure.text(EDGE / wide, 0.1 / tall, note, fontsize=9, color=GREY, parse_math=False)
    return figure


def _heights(terrain: Terrain) -> np.ndarray:
    """The losses, positive and finite: what overflowed is as high as the highest that did not."""
    losses = numbers(terrain.losses)
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        raise ValueError("losses must hold a finite value")
    return np.nan_to_num(losses, nan=finite.max(), posinf=finite.max(), neginf=finite.min()).clip(max(finite.min(), 1e-6))


def _solid(axes: "Axes", terrain: Terrain, heights: np.ndarray, norm: object, limits: tuple[float, float]) -> None:
    from matplotlib import colormaps

    first, second = np.meshgrid(numbers(terrain.first), numbers(terrain.second), indexing="ij")
    colours = colormaps["viridis"](norm(heights))
    logs = np.log10(heights)
    axes.plot_surface(
        first, second, logs, facecolors=colours, rstride=1, cstride=1, linewidth=0.3, edgecolor="#FFFFFF88", shade=False
    )
    axes.set_zlim(np.log10(limits[0]), np.log10(limits[1]))
    ticks = _ticks(*limits)
    axes.set_zticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    axes.tick_params(labelsize=8, pad=0)
    axes.set_box_aspect((1, 1, 0.7), zoom=1.15)
    axes.view_init(elev=32, azim=-60)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("#F7F7F7")
        axis.pane.set_edgecolor("#DDDDDD")
    axes.grid(False)


def _flat(axes: "Axes", terrain: Terrain, heights: np.ndarray, norm: object) -> None:
    first, second = numbers(terrain.first), numbers(terrain.second)
    levels = np.geomspace(norm.vmin, norm.vmax, LEVELS)
    axes.contourf(first, second, heights.T, levels=levels, cmap="viridis", norm=norm, extend="both")
    axes.contour(first, second, heights.T, levels=levels, colors="white", linewidths=0.5, alpha=0.6)
    if terrain.places is not None:
        places = numbers(terrain.places)
        axes.plot(places[:, 0], places[:, 1], "-", color="white", linewidth=3.4)
        axes.plot(places[:, 0], places[:, 1], "o-", color=COLORS[1], linewidth=1.8, markersize=4.5, markeredgecolor="white")
        ends = ((places[0], "first"), (places[-1], "last"))
    else:
        ends = ((np.zeros(2), "trained"),)
        axes.plot(0, 0, "o", color=COLORS[1], markersize=7, markeredgecolor="white")
    for (x, y), word in ends:
        style = {"textcoords": "offset points", "xytext": (7, 6), "fontsize": 9, "color": INK}
        axes.annotate(word, (x, y), bbox={"facecolor": "white", "alpha": 0.8, "pad": 1.5, "edgecolor": "none"}, **style)
    axes.set_xlabel(terrain.axes[0], fontsize=9, color=INK)
    axes.set_ylabel(terrain.axes[1], fontsize=9, color=INK)
    axes.set_title(terrain.name, fontsize=10, color=INK, loc="left", parse_math=False)
    axes.tick_params(labelsize=8, color=GREY, labelcolor=INK)
    axes.spines[:].set_color(GREY)


def _ticks(low: float, high: float) -> list[float]:
    """Round values from low to high, seven at most where the range allows, as many as do not crowd."""
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for digits in ((1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, *range(4, 10)), (1, 1.5, 2, 3, 4, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**exponent for exponent in exponents for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 7:
            break
    return ticks or [low, high]
