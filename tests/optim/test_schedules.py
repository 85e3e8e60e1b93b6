"""Schedules against their formulas in NumPy."""

import numpy as np
import pytest
import torch

from dlzoo.optim.schedules import inverse_sqrt, trapezoid

STEPS, RATE = 200, 0.25


def _rates(schedule, steps=STEPS + 20, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    made, found = schedule(optimizer, total_steps=STEPS, **options), []
    for _ in range(steps):
        found.append(made.get_last_lr()[0])
        optimizer.step()
        made.step()
    return np.array(found)


def test_inverse_sqrt_is_the_papers_formula():
    """Vaswani et al., equation 3: width^-0.5 min(step^-0.5, step warm^-1.5), of which the top is (width warm)^-0.5."""
    warm, width = 20, 64
    step = np.arange(1, STEPS + 1)
    paper = width**-0.5 * np.minimum(step**-0.5, step * warm**-1.5)
    found = _rates(inverse_sqrt, warmup=warm / STEPS)[1 : STEPS + 1]
    np.testing.assert_allclose(found / RATE, paper / (width * warm) ** -0.5, rtol=1e-12)
    assert found.argmax() == warm - 1 and found.max() == RATE


def test_trapezoid_is_the_papers_formula():
    """Hägele et al., equation 1, with a linear cool-down."""
    warm, down, step = 10, 50, np.arange(STEPS + 1)
    paper = np.where(step < warm, step / warm, np.where(step <= STEPS - down, 1.0, 1 - (step - (STEPS - down)) / down))
    found = _rates(trapezoid, warmup=warm / STEPS, cooldown=down / STEPS)
    np.testing.assert_allclose(found[1 : STEPS + 1], RATE * paper[1:], atol=1e-12)
    assert 0 < found[0] < found[1] and (found[STEPS:] == 0).all(), "a first step does something; past the end the rate holds"


def test_trapezoid_ends_at_the_last_rate_and_can_stay_level():
    assert _rates(trapezoid, cooldown=0.3, final=0.1)[STEPS] == pytest.approx(0.1 * RATE)
    assert (_rates(trapezoid, warmup=0.0, cooldown=0.0) == RATE).all()


@pytest.mark.parametrize(
    ("schedule", "options", "match"),
    [
        (inverse_sqrt, {"warmup": 0.0}, "warmup must be above 0"),
        (inverse_sqrt, {"warmup": 1.5}, "from 0 to 1"),
        (trapezoid, {"warmup": 0.5, "cooldown": 0.6}, "at most 1 together"),
        (trapezoid, {"final": -1}, "from 0 to 1"),
    ],
)
def test_shares_that_can_not_be_are_refused(schedule, options, match):
    with pytest.raises(ValueError, match=match):
        _rates(schedule, **options)
