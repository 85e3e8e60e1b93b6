"""A data set in memory: what is trained on, and the published test split that nothing is chosen by."""

from typing import NamedTuple

import torch
from torch import Tensor

from dlzoo.data.streams import generator

__all__ = ["Splits", "held_out"]

SEED = 20_121  # of the cut, not of a run: every run validates on the same samples


class Splits(NamedTuple):
    """Images (N, C, H, W) as uint8 and labels (N,) as int64, of both published splits."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    groups: Tensor | None = None  # (classes,): the superclass of each class, where the data set has superclasses
    edition: str = ""  # how the data differ from the published ones; "" where they do not


def held_out(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Cuts `count` of `size` samples off by a fixed permutation.

    A larger cut contains a smaller one of the same data set, so a change of the validation size moves no sample back and forth.

    Returns:
        the indices that are kept and those that are held out, each in ascending order.

    Raises:
        ValueError: count is negative or leaves nothing.
    """
    if not 0 <= count < size:
        raise ValueError(f"the number held out must be in [0, {size}), got {count}")
    order = torch.randperm(size, generator=generator("held out", SEED, size))
    return order[count:].sort().values, order[:count].sort().values
