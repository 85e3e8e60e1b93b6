"""Feature visualisation: what a unit of a trained network likes best is liked better than any real picture."""

import pytest
import torch
from torch import nn

from dlzoo.errors import ConfigError
from dlzoo.explain.visualize import activation, visualize

COLOURS = ((0.3,), (0.25,))


def _roughness(pictures):
    return float(pictures.diff(dim=2).abs().mean() + pictures.diff(dim=3).abs().mean())


@pytest.mark.parametrize("layer", [None, "body.5"], ids=["classes", "channels"])
def test_units_of_a_trained_network_answer_more_than_to_pictures_or_noise(shapes_net, drawn_shapes, layer):
    with torch.no_grad():
        real, _, _ = drawn_shapes(256, seed=3)
        noise = torch.randn(256, 1, 40, 40, generator=torch.Generator().manual_seed(0))
        units = [0, 1, 2, 3]
        best = {
            name: torch.stack([activation(shapes_net, x, [unit] * len(x), layer).max() for unit in units])
            for name, x in (("real", real), ("noise", noise))
        }
        made = visualize(shapes_net, units, (1, 40, 40), layer, COLOURS, steps=96)
        values = activation(shapes_net, (made - 0.3) / 0.25, units, layer)
    assert made.shape == (4, 1, 40, 40) and made.amin() >= 0 and made.amax() <= 1
    alive = best["real"] > 1e-3
    assert alive.sum() >= 2
    more = ((values > 1.2 * best["real"]) & (values > 1.2 * best["noise"]))[alive]
    # a channel may like an even grey best, which one of the pictures happens to be near to
    assert more.all() if layer is None else more.double().mean() >= 0.7, (values, best)


def test_variation_makes_it_smoother(shapes_net):
    rough, smooth = (visualize(shapes_net, [0, 1], (1, 40, 40), None, COLOURS, 40, variation) for variation in (0.0, 5.0))
    assert _roughness(smooth) < 0.8 * _roughness(rough)


def test_the_same_seed_gives_the_same_picture_and_nothing_is_changed(shapes_net):
    before = {name: value.clone() for name, value in shapes_net.state_dict().items()}
    state = torch.get_rng_state()
    one, two = (visualize(shapes_net, [1], (1, 20, 24), None, COLOURS, 5, seed=4) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, visualize(shapes_net, [1], (1, 20, 24), None, COLOURS, 5, seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in shapes_net.state_dict().items())


def test_long_waves_come_first():
    """Without a single step the start is noise whose waves are the stronger the longer they are, as in natural pictures."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2))
    power = torch.fft.rfft2(visualize(net, [0] * 8, (1, 64, 64), None, COLOURS, 1, 0.0) - 0.3).abs().mean((0, 1))
    assert power[2:5, 2:5].mean() > 4 * power[20:30, 20:30].mean()


def test_wrong_units_are_named(shapes_net):
    with pytest.raises(ConfigError, match="units 0 to 3, and 4 is asked for"):
        visualize(shapes_net, [4], (1, 40, 40), None, COLOURS, 1)
    with pytest.raises(ConfigError, match="units 0 to 3, and -1 is asked for"):
        visualize(shapes_net, [-1], (1, 40, 40), None, COLOURS, 1)
    with pytest.raises(ConfigError, match="no layer 'bod'"):
        visualize(shapes_net, [0], (1, 40, 40), "bod", COLOURS, 1)
    with pytest.raises(ValueError, match="at least one"):
        visualize(shapes_net, [], (1, 40, 40))
