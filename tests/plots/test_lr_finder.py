"""The picture of a range test."""

import math

import numpy as np
import pytest

from dlzoo.optim.range_test import read
from dlzoo.plots.lr_finder import lr_finder

RATES = [float(rate) for rate in np.geomspace(1e-6, 10, 100)]


def _texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def _inside(figure):
    """Whether all text lies on the figure."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    boxes = [text.get_window_extent() for text in (*figure.axes[0].texts, *figure.texts)]
    return all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)


@pytest.mark.parametrize("lowest", [1e-5, 0.05, 9.0])
def test_it_shows_the_losses_and_both_rates(lowest):
    losses = [(math.log10(rate / lowest)) ** 2 + 1 for rate in RATES]
    figure = lr_finder(RATES, losses, read(RATES, losses).smooth, lowest, lowest / 3, "digits: SGD")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    dots, line = axes.lines[:2]
    assert list(dots.get_xdata()) == RATES and len(line.get_xdata()) == 100
    assert sorted(float(mark.get_xdata()[0]) for mark in axes.lines[2:]) == pytest.approx([lowest / 3, lowest])
    assert _texts(figure) == [f"suggested: {lowest / 3:.2g}", f"smallest loss: {lowest:.2g}"]
    assert _inside(figure)


def test_a_loss_that_ran_away_does_not_flatten_the_rest():
    losses = [2.3 - 0.01 * index for index in range(98)] + [1e9, math.inf]
    axes = lr_finder(RATES, losses, read(RATES, losses).smooth, None, None, "t", "the loss ran away").axes[0]
    assert axes.get_ylim()[1] < 6
    assert len(axes.lines[0].get_xdata()) == 99


@pytest.mark.parametrize("losses", [[], [math.nan], [2.3, math.nan]])
def test_with_next_to_nothing_it_says_why(losses):
    found = read(RATES, losses)
    figure = lr_finder(RATES[: len(losses)], losses, found.smooth, None, found.rate, "t", found.problem)
    assert _texts(figure) == [found.problem] and _inside(figure)
