"""Panels: each picture in its place, heat over it in one scale for all, captions and labels inside the figure."""

import numpy as np
import pytest
import torch

from dlzoo.plots.figure import save
from dlzoo.plots.panels import Panel, Scale, panels


def test_rows_of_pictures_with_heat(tmp_path):
    image, heat = torch.rand(3, 8, 8), torch.linspace(0, 1, 16).view(4, 4)
    above = [Panel(image, caption="a cat"), Panel(image[:1], caption="a dog\nis a cat", mark=True)]
    rows = [above, [Panel(image, heat), Panel(heat=heat)]]
    figure = panels(rows, "title", ["pictures", "heat"], Scale(0, 2, "how much", ends=("none", "all")), "look here")
    save(figure, tmp_path / "panels.png")
    places = [axes.get_position() for axes in figure.axes[:4]]
    assert places[0].x0 == places[2].x0 < places[1].x0 and places[0].y0 > places[2].y1
    assert all(place.x0 >= 0 and place.x1 <= 1 and place.y0 >= 0 and place.y1 <= 1 for place in places)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), image.permute(1, 2, 0))
    under, over = figure.axes[2].images  # grey below, so that the only colours are the heat's
    np.testing.assert_allclose(under.get_array(), image.mean(0), atol=1e-6)
    assert over.get_clim() == (0, 2) and over.get_extent() == [-0.5, 7.5, 7.5, -0.5] and over.get_alpha() < 1
    assert figure.axes[3].images[0].get_clim() == (0, 2)
    words = [text.get_text() for text in figure.texts]
    assert {"a cat", "a dog\nis a cat", "pictures", "heat", "look here"} <= set(words)
    assert [label.get_text() for label in figure.axes[4].get_yticklabels()] == ["none", "all"]
    box = figure.bbox
    for text in figure.texts:
        extent = text.get_window_extent()
        assert box.x0 <= extent.x0 and extent.x1 <= box.x1 + 1 and box.y0 <= extent.y0 and extent.y1 <= box.y1


def test_a_frame_is_drawn_round_its_pixels():
    figure = panels([[Panel(heat=torch.rand(20, 20), box=(2, 3, 12, 13))]], "field")
    line = figure.axes[0].lines[-1]
    assert (line.get_xdata().min(), line.get_xdata().max()) == (1.5, 11.5)
    assert (line.get_ydata().min(), line.get_ydata().max()) == (2.5, 12.5)


def test_wide_pictures_keep_their_shape():
    axes = panels([[Panel(torch.rand(1, 4, 16))]], "wide").axes[0]
    box = axes.get_window_extent()
    assert box.width == pytest.approx(4 * box.height)


def test_rows_may_differ_in_length_and_be_none():
    figure = panels([[Panel(torch.rand(1, 4, 4))], [Panel(torch.rand(1, 4, 4))] * 3], "", ["one", "three"])
    assert len(figure.axes) == 4
    assert "no data yet" in [text.get_text() for text in panels([], "nothing").texts]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="one for each of 1 rows, got 2"):
        panels([[Panel(torch.rand(1, 4, 4))]], "", ["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(1 or 3, H, W\), got \(2, 4, 4\)"):
        panels([[Panel(torch.rand(2, 4, 4))]], "")
