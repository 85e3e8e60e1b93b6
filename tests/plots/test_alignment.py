"""The picture of where a translator looked."""

import numpy as np
import pytest
import torch

from dlzoo.plots.alignment import alignment

SOURCE, TARGET = ["Ein", "Mann", "-chen", "$x^2$ <end>"], ["A", "little", "<end>"]


def _weights(rows=3, columns=4):
    return torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(columns), rows))


def test_each_token_has_its_row_or_column_and_each_pair_its_weight():
    weights = _weights()
    axes = alignment(weights, SOURCE, TARGET, "title").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == SOURCE
    assert [text.get_text() for text in axes.get_yticklabels()] == TARGET
    np.testing.assert_array_equal(axes.images[0].get_array(), weights.numpy())
    assert axes.images[0].get_clim() == (0, 1)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (40, 60)])
def test_all_words_lie_on_the_figure_and_beside_the_squares(size):
    rows, columns = size
    words = [f"Wort{'e' * (at % 9)}" for at in range(60)]
    figure = alignment(_weights(*size), words[:columns], words[:rows], "multi30k, validation: where it looks", "a note")
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    axes = figure.axes[0]
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), *figure.texts):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text
    title = figure._suptitle.get_window_extent()
    assert all(text.get_window_extent().y1 <= title.y0 for text in axes.get_xticklabels())
    squares = axes.get_window_extent()
    assert squares.width / columns == pytest.approx(squares.height / rows, rel=0.02)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"weights must be of shape \(3, 4\), got \(4, 3\)"):
        alignment(_weights(4, 3), SOURCE, TARGET, "title")
    with pytest.raises(ValueError, match=r"got \(0, 0\)"):
        alignment(np.zeros((0, 0)), [], [], "title")
