"""Landscapes: one scale for all networks, and nothing that a loss can be breaks them."""

import numpy as np
import pytest
import torch

from dlzoo.plots.figure import save
from dlzoo.plots.landscape import Terrain, _ticks, landscape

STEPS = torch.linspace(-1, 1, 5)


def test_two_networks_share_their_colours(tmp_path):
    low, high = STEPS[:, None] ** 2 + STEPS**2 + 0.1, 10 * (STEPS[:, None] ** 2 + STEPS**2 + 0.1)
    figure = landscape([Terrain(STEPS, STEPS, low, "one"), Terrain(STEPS, STEPS, high, "two")], "both", "note")
    save(figure, tmp_path / "two.png")
    solids, flats, bar = figure.axes[:4:2], figure.axes[1:4:2], figure.axes[4]
    assert len(figure.axes) == 5 and [axes.get_title(loc="left") for axes in flats] == ["one", "two"]
    assert flats[0].collections[0].get_clim() == flats[1].collections[0].get_clim() == pytest.approx((0.1, 21.0))
    assert solids[0].get_zlim() == solids[1].get_zlim()
    assert bar.get_ylabel() == "loss"


def test_the_first_direction_is_the_horizontal_one():
    """A loss that rises along the first direction alone has upright contours."""
    losses = (1 + STEPS[:, None] + 1.0).expand(5, 5)
    axes = landscape([Terrain(STEPS, STEPS, losses)], "").axes[1]
    for path in axes.collections[-1].get_paths():
        for part in path.to_polygons(closed_only=False):
            assert np.ptp(part[:, 0]) < 1e-6 < np.ptp(part[:, 1])


def test_a_way_is_drawn_from_first_to_last():
    places = torch.tensor([[0.9, -0.5], [0.4, -0.2], [0.0, 0.0]])
    axes = landscape([Terrain(STEPS, STEPS, torch.rand(5, 5) + 0.1, places=places)], "").axes[1]
    np.testing.assert_allclose(axes.lines[-1].get_xydata(), places, atol=1e-7)
    assert {text.get_text() for text in axes.texts} == {"first", "last"}


@pytest.mark.parametrize("odd", [float("inf"), float("nan"), 0.0, 1e9])
def test_losses_that_overflow_or_vanish(odd, tmp_path):
    losses = torch.ones(5, 5)
    losses[0, 0], losses[2, 2] = odd, 0.5
    save(landscape([Terrain(STEPS, STEPS, losses)], "odd"), tmp_path / "odd.png")


def test_a_flat_loss_and_no_loss(tmp_path):
    save(landscape([Terrain(STEPS, STEPS, torch.ones(5, 5))], "flat"), tmp_path / "flat.png")
    with pytest.raises(ValueError, match="finite"):
        landscape([Terrain(STEPS, STEPS, torch.full((5, 5), float("nan")))], "")
    with pytest.raises(ValueError, match="at least one"):
        landscape([], "")


@pytest.mark.parametrize(("low", "high"), [(0.004, 6.0), (2.4, 4.1), (1e-6, 1e6), (1.0, 1.01)])
def test_ticks_are_few_and_inside(low, high):
    ticks = _ticks(low, high)
    assert 1 <= len(ticks) <= 13 and all(low <= tick <= high for tick in ticks) and ticks == sorted(ticks)
