import numpy as np
import pytest
import torch

from dlzoo.plots.figure import save
from dlzoo.plots.masks import STRENGTH, mask_rows, overlay, palette


@pytest.mark.parametrize("count", [1, 2, 11, 12, 30])
def test_colours_differ(count):
    colors = palette(count)
    assert colors.shape == (count, 3) and colors.min() >= 0 and colors.max() <= 1
    distances = np.abs(colors[:, None] - colors[None]).max(2) + np.eye(count)
    assert distances.min() > 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_an_overlay_is_the_mixture_and_leaves_what_has_no_label_grey(channels):
    image = torch.rand(channels, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(3, (4, 5), generator=torch.Generator().manual_seed(0))
    mask[0] = 255
    colors = palette(3)
    found = overlay(image, mask, colors)
    grey = image.mean(0).numpy()
    for row in range(4):
        for column in range(5):
            expected = np.repeat(grey[row, column], 3)
            if row:
                expected = STRENGTH * colors[mask[row, column]] + (1 - STRENGTH) * expected
            assert found[row, column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("channels", "predicted", "panels"), [(3, True, 4), (1, False, 2)])
def test_a_row_for_each_picture(channels, predicted, panels, tmp_path):
    images, masks = torch.rand(3, channels, 12, 16), torch.randint(3, (3, 12, 16))
    masks[:, :2] = 255
    other = masks.clone()
    other[0, 5:8, 5:8] = (masks[0, 5:8, 5:8] + 1) % 3
    names = ("sky 0.91", "a $street_ 0.5", "car -")
    figure = mask_rows(images, masks, other if predicted else None, names, "title", ["one", "two", "three"])
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(drawn) == 3 * panels
    assert [text.get_text() for text in figure.axes[-1].texts] == list(names)
    assert {"one", "two", "three"} <= {text.get_text() for text in figure.texts}
    if predicted:  # red exactly where the two differ, and nowhere where there is no label
        red = [(picture[..., 0] - picture[..., 1]) > 0.2 for picture in drawn[panels - 1 :: panels]]
        assert np.array_equal(red[0], (other != masks)[0].numpy()) and not red[1].any()
    save(figure, tmp_path / "masks.png")
    assert (tmp_path / "masks.png").stat().st_size > 5000


def test_nothing_to_show_is_said():
    assert "no data yet" in [text.get_text() for text in mask_rows([], [], None, ("a",), "title").texts]
