"""A grid of images: every pixel as it is, every caption below its image."""

import numpy as np
import pytest
import torch

from dlzoo.plots.figure import save
from dlzoo.plots.images import image_grid, save_image


def captions(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_sixty_four_digits_row_by_row():
    images = torch.rand(64, 1, 8, 8)
    figure = image_grid(images, [f"{index}" for index in range(64)], "digits")
    drawn = figure.axes[0].images
    assert len(drawn) == 64
    lefts = [image.get_extent()[0] for image in drawn]
    tops = [image.get_extent()[3] for image in drawn]
    assert len(set(lefts)) == 8 and lefts[:8] == sorted(lefts[:8])
    assert len(set(tops)) == 8 and tops == sorted(tops, reverse=True)
    np.testing.assert_allclose(drawn[9].get_array(), images[9, 0])
    assert drawn[0].get_interpolation() == "nearest"
    assert (drawn[0].norm.vmin, drawn[0].norm.vmax) == (0, 1)  # grey levels compare from image to image
    assert captions(figure)[63] == "63"


def test_colour_images_keep_their_channels_and_their_shape():
    images = torch.rand(3, 3, 4, 8)
    drawn = image_grid(images, [], "wide").axes[0].images[1]
    np.testing.assert_allclose(drawn.get_array(), images[1].permute(1, 2, 0))
    left, right, bottom, top = drawn.get_extent()
    assert right - left == pytest.approx(2 * (top - bottom))


def test_values_outside_are_clipped_and_nan_is_black(tmp_path):
    images = torch.tensor([-1.0, 2.0, float("nan"), 0.5]).reshape(1, 1, 2, 2)
    figure = image_grid(images, ["odd"], "")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[0, 1], [0, 0.5]])
    save(figure, tmp_path / "grid.png")


def test_long_captions_take_two_lines_that_fit(tmp_path):
    words = [
        "cat 0.93 / dog",
        "automobile 0.93 / automobile",
        "an_extremely_long_class_name_of_many_words 0.71 / b",
        "costs $1 or $2",
    ]
    figure = image_grid(torch.rand(4, 3, 32, 32), words, "")
    assert captions(figure) == ["cat 0.93 / dog", "automobile 0.93\n/ automobile", "an_extreme...s 0.71\n/ b", "costs $1 or $2"]
    save(figure, tmp_path / "laid_out.png")  # lays the figure out
    cell = figure.axes[0].images[0].get_window_extent().width
    assert all(text.get_window_extent().width <= 1.1 * cell for text in figure.axes[0].texts)


@pytest.mark.parametrize("channels", [1, 3])
def test_save_image_writes_every_pixel(tmp_path, channels):
    from PIL import Image

    pixels = torch.arange(channels * 12, dtype=torch.uint8).view(channels, 3, 4) * 7
    save_image(pixels / 255, tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert image.mode == ("L" if channels == 1 else "RGB")
        read = np.asarray(image).reshape(3, 4, channels)
    np.testing.assert_array_equal(read, pixels.permute(1, 2, 0))


def test_save_image_clips_what_lies_outside(tmp_path):
    from PIL import Image

    save_image(torch.tensor([[[-0.5, 0.5, 1.5]]], requires_grad=True), tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert np.asarray(image).tolist() == [[0, 128, 255]]


def test_cells_have_the_size_of_their_images(tmp_path):
    """One inch of the axes is one inch of the figure: squares stay square, and the last column is inside."""
    figure = image_grid(torch.rand(3, 1, 8, 8), ["a", "b", "c"], "three")
    save(figure, tmp_path / "grid.png")
    boxes = [image.get_window_extent() for image in figure.axes[0].images]
    assert all(box.width == pytest.approx(box.height) == pytest.approx(120) for box in boxes)
    assert boxes[-1].x1 <= figure.bbox.x1 and boxes[0].y1 < figure._suptitle.get_window_extent().y0


def test_marked_images_stand_out():
    figure = image_grid(torch.rand(3, 1, 8, 8), ["a", "b", "c"], "", marked=[1])
    assert len(figure.axes[0].lines) == 1
    colors = [text.get_color() for text in figure.axes[0].texts]
    assert colors[0] == colors[2] != colors[1]


def test_any_dtype_and_numpy():
    half = torch.full((1, 1, 2, 2), 0.5, dtype=torch.bfloat16, requires_grad=True)
    for images in (half, np.full((1, 1, 2, 2), 0.5, dtype=np.float16)):
        np.testing.assert_array_equal(image_grid(images, [], "").axes[0].images[0].get_array(), np.full((2, 2), 0.5))


def test_no_image_yet():
    figure = image_grid(torch.zeros(0, 3, 32, 32), [], "samples")
    assert "no data yet" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(
    ("shape", "words", "columns", "message"),
    [
        ((3, 8, 8), [], 8, r"shape \(N, 1 or 3, H, W\), got \(3, 8, 8\)"),
        ((3, 2, 8, 8), [], 8, r"got \(3, 2, 8, 8\)"),
        ((3, 1, 8, 8), ["a"], 8, "one for each of 3 images, got 1"),
        ((3, 1, 8, 8), [], 0, "columns must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(shape, words, columns, message):
    with pytest.raises(ValueError, match=message):
        image_grid(torch.zeros(shape), words, "", columns)
