"""Heads, next tokens, fading gradients: what is drawn is what was given."""

import numpy as np
import pytest

from dlzoo.plots.fading import fading
from dlzoo.plots.heads import heads
from dlzoo.plots.next_tokens import next_tokens


def texts(figure):
    """All that is written in a figure."""
    import matplotlib.text

    return [found.get_text() for found in figure.findobj(matplotlib.text.Text) if found.get_text()]


def test_heads_are_a_grid_of_the_weights_themselves():
    random = np.random.default_rng(0)
    maps = {"first": random.random((2, 3, 4)), "second": random.random((2, 3, 4))}
    figure = heads(maps, "title", ["a", "b", "c"], ["w", "x", "y", "a long token that is cut"], "a note")
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == 4
    for image, weights in zip(images, [*maps["first"], *maps["second"]], strict=True):
        np.testing.assert_array_equal(image, weights)
    assert {"first", "second", "head 1", "a note", "w", "c"} <= set(texts(figure))
    below, beside = (
        [len(getattr(axes, name)()) for axes in figure.axes[:4]] for name in ("get_xticklabels", "get_yticklabels")
    )
    assert below == [0, 0, 4, 4] and beside == [3, 0, 3, 0]  # the tokens stand at the edge of the grid


def test_many_heads_are_small_and_unnamed():
    figure = heads({"layer": np.full((12, 64, 64), 1 / 64)}, "title", ["q"] * 64, ["k"] * 64)
    assert "q" not in texts(figure) and figure.get_size_inches()[0] < 20
    with pytest.raises(ValueError, match=r"layer must be of shape \(heads, 2, 3\), got 1x3x3"):
        heads({"layer": np.ones((1, 3, 3))}, "title", ["q"] * 2, ["k"] * 3)
    with pytest.raises(ValueError, match="at least one layer"):
        heads({}, "title", [], [])


def test_the_true_token_is_framed():
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    words = [["a", "b"], ["c", "d"], ["e", "f"]]
    shares = np.array([[0.6, 0.3], [0.5, 0.2], [0.004, 0.001]])
    figure = next_tokens(["x", "y", "z"], ["b", "c", "q"], [0.3, 0.5, 0.0], words, shares, [1, 0, None], "title", "note")
    cells = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    framed = [to_hex(patch.get_edgecolor()).upper() == "#D55E00" for patch in cells]
    assert framed == [False, True, True, False, False, False]
    assert {"x", "b", "60", "50", "<1", "choice 2", "note"} <= set(texts(figure))
    dark = [np.mean(patch.get_facecolor()[:3]) for patch in cells]
    assert dark == sorted(dark[:1]) + dark[1:] and dark[0] < dark[1] and dark[2] < dark[3] < dark[5]
    with pytest.raises(ValueError, match="at least 1 place"):
        next_tokens([], [], np.zeros(0), [], np.zeros((0, 2)), [], "title")


def test_fading_is_a_share_of_the_last_step_from_there_back():
    figure = fading({"one": [1e-12, 1e-6, 2.0], "other": [4.0, 4.0, 4.0]}, "title", "share", "note")
    one, other = figure.axes[0].lines
    np.testing.assert_allclose(one.get_ydata(), [1.0, 5e-7, 5e-13])
    np.testing.assert_allclose(other.get_ydata(), [1.0, 1.0, 1.0])
    assert {"one: 5e-13", "other: 1", "share", "note"} <= set(texts(figure))
    for curves in ({}, {"one": [1.0]}, {"one": [1.0, 0.0]}):
        with pytest.raises(ValueError, match=r"at least one|at least 2 steps"):
            fading(curves, "title", "share")
