"""Learning-rate schedules as functions of the share of the training that is done.

Each takes the optimizer and the number of steps in all, so that a shorter run keeps the shape of a longer one, and returns a
torch scheduler that is stepped after every batch. The rate that they scale is the optimizer's own.
"""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["constant", "cosine", "exponential", "inverse_sqrt", "multistep", "one_cycle", "trapezoid"]


def constant(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The same rate throughout."""
    return LambdaLR(optimizer, lambda step: 1.0)


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> LambdaLR:
    """The rate falls by a factor at each milestone.

    Source: He et al. 2015, section 4.2: a tenth at 32k and at 48k of 64k steps.

    Args:
        optimizer: its rates are scaled.
        total_steps: steps of the whole training.
        milestones: shares of the training, from 0 to 1.
        gamma: the factor.
        warmup: share of the training in which the rate rises from near 0.

    Raises:
        ValueError: a share outside 0 to 1.
    """
    _check_shares(milestones=milestones, warmup=[warmup])
    return _by_share(
        optimizer,
        total_steps,
        lambda share: _rise(share, warmup) * gamma ** sum(share >= milestone for milestone in milestones),
    )


def exponential(optimizer: Optimizer, total_steps: int, final: float = 0.01) -> LambdaLR:
    """Up or down by the same factor at each step.

    Args:
        optimizer: its rates are scaled.
        total_steps: steps of the whole training.
        final: the last rate, as a share of the optimizer's; above 1 it rises, as a range test wants it.

    Raises:
        ValueError: final is not above 0.
    """
    if final <= 0:
        raise ValueError(f"final must be above 0, got {final}")
    return _by_share(optimizer, total_steps, lambda share: final**share)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.0) -> LambdaLR:
    """A linear rise, then half a cosine down.

    Source: Loshchilov, Hutter 2017, arXiv 1608.03983, equation 5, without restarts.

    Args:
        optimizer: its rates are scaled.
        total_steps: steps of the whole training.
        warmup: share of the training in which the rate rises.
        final: the rate at the end, as a share of the optimizer's.

    Raises:
        ValueError: a share outside 0 to 1.
    """
    _check_shares(warmup=[warmup], final=[final])

    def factor(share: float) -> float:
        if share < warmup:
            return _rise(share, warmup)
        past = (share - warmup) / max(1 - warmup, 1e-12)
        return final + (1 - final) * (1 + math.cos(math.pi * past)) / 2

    return _by_share(optimizer, total_steps, factor)


def one_cycle(optimizer: Optimizer, total_steps: int, peak: float = 0.3, start: float = 0.04, final: float = 0.0) -> LambdaLR:
    """Up once and down once, in straight lines; the optimizer's rate is the top.

    Source: Smith, Topin 2018, arXiv 1708.07120, section 3; the momentum is left alone.

    Args:
        optimizer: its rates are scaled.
        total_steps: steps of the whole training.
        peak: share of the training at which the rate is highest.
        start: the first rate, as a share of the highest.
        final: the last rate, as a share of the highest.

    Raises:
        ValueError: a share outside 0 to 1.
    """
    _check_shares(peak=[peak], start=[start], final=[final])

    def factor(share: float) -> float:
        if share < peak:
            return start + (1 - start) * share / peak
        return final + (1 - final) * (1 - share) / max(1 - peak, 1e-12)

    return _by_share(optimizer, total_steps, factor)


def inverse_sqrt(optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> LambdaLR:
    """A linear rise, then down with the square root of the steps; the optimizer's rate is the top.

    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 3, where the top is (width * warm-up steps)^-0.5.

    Args:
        optimizer: its rates are scaled.
        total_steps: steps of the whole training.
        warmup: share of the training in which the rate rises; the paper's 4,000 of 100,000 steps are 0.04.

    Raises:
        ValueError: warmup is not above 0 and at most 1.
    """
    _check_shares(warmup=[warmup])
    if not warmup:
        raise ValueError("warmup must be above 0: it is what the rate falls from, got 0")

    def factor(share: float) -> float:
        return _rise(share, warmup) if share < warmup else (warmup / share) ** 0.5

    return _by_share(optimizer, total_steps, factor)


def trapezoid(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.02, cooldown: float = 0.2, final: float = 0.0
) -> LambdaLR:
    """Up, level, and down in a straight line: one level run can be cooled down at several lengths.

    Source: Hägele et al. 2024, arXiv 2405.18392, equation 1 with the linear form of section 4.1.

    Args:
        optimizer: its rates are scaled.
        total_steps: steps of the whole training.
        warmup: share of the training in which the rate rises.
        cooldown: share of the training, its end, in which it falls; 0.2 is as good as a cosine there.
        final: the last rate, as a share of the optimizer's.

    Raises:
        ValueError: a share outside 0 to 1, or warm-up and cool-down overlap.
    """
    _check_shares(warmup=[warmup], cooldown=[cooldown], final=[final])
    if warmup + cooldown > 1:
        raise ValueError(f"warmup and cooldown must be at most 1 together, got {warmup} and {cooldown}")

    def factor(share: float) -> float:
        left = min(1.0, (1 - share) / cooldown) if cooldown else 1.0
        return _rise(share, warmup) * (final + (1 - final) * left)

    return _by_share(optimizer, total_steps, factor)


def _by_share(optimizer: Optimizer, total_steps: int, factor: Callable[[float], float]) -> LambdaLR:
    # past the end (a run that goes on longer than it planned) the last rate holds
    return LambdaLR(optimizer, lambda step: factor(min(step / max(total_steps, 1), 1.0)))


def _rise(share: float, warmup: float) -> float:
    # never 0: a first step with no rate would be a step lost
    return min(1.0, max(share / warmup, 0.01)) if warmup else 1.0


def _check_shares(**shares: Sequence[float]) -> None:
    for name, values in shares.items():
        for value in values:
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, got {value}")
