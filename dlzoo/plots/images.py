"""Images in a grid, each with a caption."""

import math
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlzoo.plots.figure import COLORS, EDGE, HEAD, INK, blank, clip_text, new, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from torch import Tensor

__all__ = ["image_grid", "save_image"]

CELL = 1.2  # inches an image is wide
MARKED = COLORS[1]


def image_grid(
    images: "Tensor | np.ndarray", captions: Sequence[str], title: str, columns: int = 8, marked: Collection[int] = ()
) -> "Figure":
    """The images row by row, each above its caption of at most two lines.

    Args:
        images: values from 0 to 1; what lies outside is clipped, and what is not a number is black.
        captions: one for each image, or none at all.
        title: what is shown.
        columns: images in a row.
        marked: indices of images that stand out by a frame and a coloured caption, such as mistakes.

    Shape:
        images: (N, C, H, W) with C = 1 (grey) or 3 (colour).

    Raises:
        ValueError: the images have another shape, or the captions another number.
    """
    from matplotlib import colormaps

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have the shape (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if len(captions) not in (0, len(images)):
        raise ValueError(f"captions must be one for each of {len(images)} images, got {len(captions)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if not len(images):
        return blank(title)
    pixels = np.nan_to_num(numbers(images), nan=0.0).clip(0, 1).transpose(0, 2, 3, 1)  # (N, H, W, C)
    columns = min(columns, len(pixels))
    rows = math.ceil(len(pixels) / columns)
    lines = [_wrap(caption) for caption in captions]
    below = 0.06 + 0.14 * max((text.count("\n") + 1 for text in lines if text), default=0)  # inches of caption
    height = CELL * pixels.shape[1] / pixels.shape[2]
    across, down = CELL + 0.12, height + below + 0.06  # inches from one image to the next
    wide, high = max(columns * across + 2 * EDGE - 0.12, 4.0), rows * down + (HEAD if title else EDGE) + 0.06
    figure = new(wide, high, title)
    axes = figure.add_axes((EDGE / wide, 0.06 / high, columns * across / wide, rows * down / high))
    axes.set_axis_off()
    grey = colormaps["gray"]  # looked up once: every look-up is a new table
    for index, image in enumerate(pixels):
        left, top = (index % columns) * across, -(index // columns) * down
        _draw_image(axes, image, (left, left + CELL, top - height, top), grey)
        color = MARKED if index in marked else INK
        if index in marked:
            frame = ([left, left + CELL, left + CELL, left, left], [top, top, top - height, top - height, top])
            axes.plot(*frame, color=MARKED, linewidth=2.5, clip_on=False)
        if lines:
            place = (left + CELL / 2, top - height - 0.05)
            style = {"horizontalalignment": "center", "verticalalignment": "top", "linespacing": 1.1, "parse_math": False}
            axes.text(*place, lines[index], fontsize=8.5, color=color, **style)
    axes.set(xlim=(0, columns * across), ylim=(-rows * down, 0), aspect="auto")  # inches
    return figure


def save_image(image: "Tensor", path: Path) -> None:
    """One image as a file, pixel for pixel.

    Args:
        image: values from 0 to 1.
        path: the file; its suffix is the format.

    Shape:
        image: (C, H, W) with C = 1 (grey) or 3 (colour).
    """
    from PIL import Image

    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()  # (H, W, C)
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)


def _draw_image(axes: "Axes", image: np.ndarray, extent: tuple[float, float, float, float], grey: "Colormap") -> None:
    """Square pixels for a small image, averaged ones for an image larger than its place."""
    small = image.shape[1] <= 2 * CELL * 100
    axes.imshow(
        image if image.shape[2] == 3 else image[:, :, 0],
        cmap=grey,
        vmin=0,
        vmax=1,
        extent=extent,
        interpolation="nearest" if small else "antialiased",
    )


def _wrap(caption: str) -> str:
    width = 19  # characters that fit below an image
    caption = " ".join(caption.split())
    if len(caption) <= width:
        return caption
    first, slash, second = caption.partition(" / ")
    lines = [first, f"/ {second}"] if slash else textwrap.wrap(caption, width, max_lines=2, placeholder="...")
    return "\n".join(clip_text(line, width) for line in lines)
