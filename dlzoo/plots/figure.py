"""One look for all figures, and a safe way to store them.

Figures are made without pyplot: no window, no list of open figures, no settings shared between threads. A notebook shows the
returned object as it is.
"""

import functools
import io
import os
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = [
    "COLORS",
    "EDGE",
    "GREY",
    "HEAD",
    "INK",
    "blank",
    "clean",
    "clip_text",
    "margins",
    "new",
    "numbers",
    "save",
    "text_width",
]

# Okabe and Ito 2008: told apart with any of the usual colour blindnesses, and in grey. Yellow is left out: too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK = "#222222"
GREY = "#6E6E6E"
TITLE_SIZE = 13
EDGE = 0.16  # inches from the title, and from what stands outermost, to the edge of the figure
HEAD = 0.45  # inches at the top for the title


def new(width: float, height: float, title: str = "") -> "Figure":
    """An empty figure of so many inches, at 100 dots an inch; the title's letters shrink until it fits."""
    figure = _figure_class()(figsize=(width, height), dpi=100, facecolor="white")
    if title:
        room = (width - 2 * EDGE) / max(text_width(title, TITLE_SIZE), 1e-6)
        figure.suptitle(
            title,
            x=EDGE / width,
            y=1 - 0.1 / height,
            fontsize=TITLE_SIZE * min(1.0, max(room, 0.55)),
            color=INK,
            horizontalalignment="left",
            parse_math=False,
        )
    return figure


@functools.cache
def _figure_class() -> "type[Figure]":
    from matplotlib.figure import Figure

    class Picture(Figure):
        """Shows itself in a notebook, which of itself shows only figures of pyplot, or after %matplotlib inline."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Picture


def margins(figure: "Figure", left: float, right: float, top: float, bottom: float, between: float = 0.0) -> None:
    """Places the axes: inches round them, and between one row of them and the next.

    matplotlib's own layouts look for these by drawing the figure twice more, which takes as long as the drawing itself.
    """
    width, height = figure.get_size_inches()
    grid = figure.axes[0].get_gridspec()
    rows = grid.nrows if grid else 1
    mean = (height - top - bottom - (rows - 1) * between) / rows
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, hspace=between / mean)


def text_width(text: str, size: float) -> float:
    """How many inches the longest line of `text` takes in letters of `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return max(text_to_path.get_text_width_height_descent(line or " ", font, False)[0] for line in text.split("\n")) / 72


def blank(title: str, message: str = "no data yet") -> "Figure":
    """A figure that says why it shows nothing."""
    figure = new(6.0, 2.5, title)
    figure.text(0.5, 0.45, message, fontsize=13, color=GREY, horizontalalignment="center", verticalalignment="center")
    return figure


def clean(axes: "Axes") -> None:
    """The axes without box, with readable ticks and a grid that stays behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=9, color=GREY, labelcolor=INK)
    axes.grid(True, axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)


def clip_text(text: str, length: int) -> str:
    """`text` in one line of at most `length` (6 or more) characters; the middle goes, since names often differ at the end."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    tail = length // 3
    return f"{text[: length - 3 - tail].rstrip()}...{text[-tail:].lstrip()}"


def numbers(values: "Tensor | np.ndarray") -> np.ndarray:
    """`values` in float64, whatever they are made of and wherever they lie."""
    return np.asarray(values.detach().cpu().double() if hasattr(values, "detach") else values, dtype=np.float64)


def save(fig: "Figure", path: Path) -> None:
    """Writes `fig` under a temporary name and renames it, so that a reader never finds half a picture.

    Args:
        fig: any figure of matplotlib.
        path: the file; its suffix (.png, .svg, .pdf) is the format. Its folder is made if need be.

    Raises:
        ValueError: `path` is there and no file: renaming onto a device such as /dev/null would destroy it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"path must be a file or new, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a class name in a script the font lacks
            fig.savefig(temporary, format=path.suffix[1:] or "png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
