"""What a range test says: a learning rate, read from the losses of a training whose rate rose step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Reading", "read"]

WIDTH = 0.02  # of the smoothing, as a share of the steps
ENOUGH = 12  # steps below which nothing can be read
FELL = 0.02  # of the first loss: a smaller fall is none
BELOW = 2.0  # how many times smaller than the rate of the smallest loss the suggestion is


@dataclass(frozen=True)
class Reading:
    """What a range test says.

    Args:
        smooth: the losses, each a mean of its neighbours.
        lowest: the step at which the loss is smallest.
        rate: the suggestion, half the rate of that step; None where there is none.
        problem: why there is none, "" otherwise.
    """

    smooth: list[float]
    lowest: int
    rate: float | None
    problem: str = ""


def read(rates: Sequence[float], losses: Sequence[float]) -> Reading:
    """Reads a learning rate from a range test.

    Source: Smith 2017, Cyclical learning rates, arXiv 1506.01186, section 3.3. Differs from it: the smoothed losses of training
    are read, and one rate, safely below the one at which they are smallest: there the step is about to become too long.

    Args:
        rates: rising, the same factor between any two.
        losses: the loss of each step, before its update.
    """
    finite = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    before, rates, losses = len(losses), rates[:finite], losses[:finite]
    if finite < ENOUGH:
        return Reading(list(losses), 0, None, f"the loss was not finite after {finite} steps, at a rate of {_at(rates, -1)}")
    smooth = _smooth(losses)
    first = max(3, finite // 10)
    start = sum(losses[:first]) / first
    lowest = min(range(finite), key=smooth.__getitem__)
    # how far the smallest of so many means over neighbours lies below their mean by chance alone
    some = finite // 3
    noise = math.sqrt(sum((a - b) ** 2 for a, b in zip(losses[:some], smooth[:some], strict=True)) / some)
    chance = max(FELL * abs(start), 3 * noise / math.sqrt(_width(finite)))
    if start - smooth[lowest] > chance:
        if lowest < finite - 2 or finite < before:
            return Reading(smooth, lowest, rates[lowest] / BELOW)
        return Reading(smooth, lowest, None, f"the loss was still falling at the last rate, {_at(rates, -1)}")
    if max(smooth) - start > max(0.5 * abs(start), 2 * chance):
        problem = f"the loss never fell: it rose from a rate of about {_at(rates, _rise(smooth, start + chance))} on"
    else:
        problem = f"the loss hardly moved between the rates {_at(rates, 0)} and {_at(rates, -1)}"
    return Reading(smooth, lowest, None, problem)


def _smooth(values: Sequence[float]) -> list[float]:
    """A mean weighted by a bell over the neighbours: unlike a running mean it does not lag behind."""
    width = _width(len(values))
    reach = math.ceil(3 * width)
    bell = [math.exp(-0.5 * (offset / width) ** 2) for offset in range(-reach, reach + 1)]
    smooth = []
    for index in range(len(values)):
        near = [
            (weight, values[index + offset])
            for offset, weight in zip(range(-reach, reach + 1), bell, strict=True)
            if 0 <= index + offset < len(values)
        ]
        smooth.append(sum(weight * value for weight, value in near) / sum(weight for weight, _ in near))
    return smooth


def _width(steps: int) -> float:
    return max(1.0, WIDTH * steps)


def _rise(smooth: Sequence[float], level: float) -> int:
    """The step from which the loss stays above a level."""
    return next((index + 1 for index in reversed(range(len(smooth))) if smooth[index] <= level), 0)


def _at(rates: Sequence[float], index: int) -> str:
    return f"{rates[min(index, len(rates) - 1)]:.2g}" if rates else "the first step"
