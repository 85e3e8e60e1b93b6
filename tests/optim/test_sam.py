"""SAM's formulas."""

import math

import numpy as np
import torch

from dlzoo.optim.sam import ascend, gradient_norm


def test_the_step_uphill_is_equation_2():
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=shape) for shape in ((3, 4), (5,), (2, 2, 2))]
    slopes = [generator.normal(size=weight.shape) for weight in weights]
    parameters = [torch.from_numpy(weight.copy()) for weight in weights]
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = torch.from_numpy(slope)
    norm = math.sqrt(sum((slope**2).sum() for slope in slopes))
    assert math.isclose(gradient_norm(parameters), norm, rel_tol=1e-14)
    ascend(parameters, 0.05 / gradient_norm(parameters))
    for parameter, weight, slope in zip(parameters, weights, slopes, strict=True):
        np.testing.assert_allclose(parameter.numpy(), weight + 0.05 * slope / norm, rtol=1e-14)
    moved = math.sqrt(sum(((p.numpy() - w) ** 2).sum() for p, w in zip(parameters, weights, strict=True)))
    assert math.isclose(moved, 0.05, rel_tol=1e-12), "the radius is over all parameters together"


def test_a_norm_of_half_precision_gradients_does_not_overflow():
    parameter = torch.zeros(100, dtype=torch.float16)
    parameter.grad = torch.full((100,), 6e4, dtype=torch.float16)
    assert math.isclose(gradient_norm([parameter]), 6e5, rel_tol=1e-3)
    assert math.isnan(gradient_norm([]))
