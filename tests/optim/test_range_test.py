"""Reading a learning rate from a range test."""

import math

import numpy as np
import pytest

from dlzoo.optim.range_test import read

RATES = [float(rate) for rate in np.geomspace(1e-6, 10, 200)]


def _curve(lowest=0.05, start=2.3, noise=0.05, seed=0):
    """Flat, down in one and a half decades to a minimum at `lowest`, and steeply up."""
    x = np.log10(np.array(RATES) / lowest)
    loss = start - 1.5 * np.exp(-0.5 * (np.minimum(x, 0) / 0.8) ** 2) + np.where(x > 0, 4 * x**2, 0)
    return list(loss + noise * np.random.default_rng(seed).normal(size=len(x)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lowest", [1e-3, 0.05, 0.5])
def test_it_suggests_half_the_rate_of_the_smallest_loss(lowest, seed):
    found = read(RATES, _curve(lowest, seed=seed))
    assert not found.problem
    assert RATES[found.lowest] == pytest.approx(lowest, rel=0.5)
    assert found.rate == pytest.approx(RATES[found.lowest] / 2)


def test_one_lucky_batch_does_not_decide():
    losses = _curve()
    losses[20] = 0.0
    assert RATES[read(RATES, losses).lowest] == pytest.approx(0.05, rel=0.5)


def test_losses_may_be_negative():
    losses = [loss - 100 for loss in _curve(noise=0.01)]
    lower = read(RATES, losses)
    assert RATES[lower.lowest] == pytest.approx(0.05, rel=0.5)


def test_it_reads_up_to_the_first_loss_that_is_not_finite():
    losses = _curve()
    losses[170:] = [math.nan] * 30
    found = read(RATES, losses)
    assert found.rate == read(RATES, _curve()).rate and len(found.smooth) == 170


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_a_flat_curve_says_so(noise, seed):
    flat = list(2.3 + noise * np.random.default_rng(seed).normal(size=200))
    found = read(RATES, flat)
    assert found.rate is None and "hardly moved between the rates 1e-06 and 10" in found.problem


def test_a_curve_that_only_rises_says_so():
    found = read(RATES, [2.3 + 0.1 * max(0, index - 50) ** 1.5 for index in range(200)])
    assert found.rate is None and "never fell" in found.problem
    rate = float(found.problem.split()[-2])
    assert 0.5 * RATES[50] < rate < 2 * RATES[50], "the rate from which it rises"


@pytest.mark.parametrize("finite", [0, 3])
def test_a_loss_that_is_never_finite_says_so(finite):
    found = read(RATES, [2.3] * finite + [math.nan])
    assert found.rate is None and f"not finite after {finite} steps" in found.problem


def test_a_loss_that_falls_to_the_end_says_so():
    found = read(RATES, list(np.linspace(2.3, 0.3, 200)))
    assert found.rate is None and "still falling at the last rate, 10" in found.problem
