"""The loss around a trained network, on a plane through its weights.

Two random directions span the plane. Each filter of a direction gets the length of the network's own filter: relu networks can
be rescaled without changing what they compute, and only so can the surfaces of two networks be compared. The way that training
took is drawn in another plane, of the two directions in which its checkpoints differ most; random ones would miss it.

Source: Li, Xu, Taylor, Studer, Goldstein 2018, Visualizing the Loss Landscape of Neural Nets, https://arxiv.org/abs/1712.09913,
    sections 4 and 7.
Differs from it: batch norms use the statistics of the batch that the loss is taken of. Moved weights with the old statistics
    would show what stale statistics cost, and not the surface that training went down.

Letters: F filters, N points of the grid along one side, T checkpoints.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.explain.layers import evaluating, require_scores

__all__ = ["Surface", "Way", "batch_statistics", "filter_normalised", "mean_loss", "surface", "way"]

Direction = Mapping[str, Tensor]  # of each parameter's name


class Surface(NamedTuple):
    """A loss on a grid: losses[i, j] at first[i] times the first direction plus second[j] times the second."""

    first: Tensor
    second: Tensor
    losses: Tensor


class Way(NamedTuple):
    """A training in the plane of its two principal directions: where its checkpoints lie, and what share of its way that is."""

    directions: tuple[Direction, Direction]
    places: Tensor
    explained: tuple[float, float]


def filter_normalised(net: nn.Module, seed: int = 0) -> tuple[Direction, Direction]:
    """Two random directions whose filters are as long as the network's; 0 for biases and norms, which have no filters.

    Args:
        net: the network.
        seed: of the directions: two networks of the same form get the same ones.
    """
    random = torch.Generator().manual_seed(seed)
    return _one(net, random), _one(net, random)


def _one(net: nn.Module, random: torch.Generator) -> Direction:
    direction = {}
    for name, weight in net.named_parameters():
        if weight.ndim < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        drawn = torch.randn(weight.shape, generator=random).to(weight)
        own, its = (tensor.detach().flatten(1).norm(dim=1) for tensor in (weight, drawn))  # (F,)
        direction[name] = drawn * (own / its.clamp(min=1e-12)).view(-1, *[1] * (weight.ndim - 1))
    return direction


def surface(
    net: nn.Module,
    loss: Callable[[nn.Module], float],
    directions: tuple[Direction, Direction],
    first: Tensor,
    second: Tensor,
) -> Surface:
    """The loss on a grid around the network's weights, which are as before afterwards.

    Args:
        net: the network.
        loss: of the network; it is in evaluation mode, with the batch's statistics in its batch norms.
        directions: of the two axes.
        first: (N,), the steps along the first axis.
        second: (N,), along the second.
    """
    weights = dict(net.named_parameters())
    middle = {name: weight.detach().clone() for name, weight in weights.items()}
    losses = torch.zeros(len(first), len(second))
    try:
        with torch.no_grad(), batch_statistics(net):
            for i, one in enumerate(first.tolist()):
                for j, two in enumerate(second.tolist()):
                    for name, weight in weights.items():
                        weight.copy_(middle[name] + one * directions[0][name] + two * directions[1][name])
                    losses[i, j] = loss(net)
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(middle[name])
    return Surface(first, second, losses)


def way(checkpoints: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> Way:
    """The plane in which a training moved most, through its last checkpoint.

    Args:
        checkpoints: the weights over time, at least three.
        names: of the parameters; what else a checkpoint holds (a norm's statistics) is left out.

    Raises:
        ValueError: fewer than three checkpoints, which would span no plane.
    """
    if len(checkpoints) < 3:
        raise ValueError(f"a plane needs at least 3 checkpoints, got {len(checkpoints)}")
    last = checkpoints[-1]
    moved = torch.stack(
        [torch.cat([(weights[name].float() - last[name].float()).flatten() for name in names]) for weights in checkpoints]
    )  # (T, all weights)
    # T is small and the weights are many: the directions come from the T x T products
    values, vectors = torch.linalg.eigh((moved @ moved.T).double())
    spread = values.clamp(min=0)
    units = []
    for index in (-1, -2):
        unit = vectors[:, index].float() @ moved
        units.append(unit / unit.norm().clamp(min=1e-12))
    places = moved @ torch.stack(units, 1)  # (T, 2)
    total = float(spread.sum()) or 1.0
    shares = (float(spread[-1]) / total, float(spread[-2]) / total)
    return Way((_split(units[0], last, names), _split(units[1], last, names)), places, shares)


def _split(flat: Tensor, like: Mapping[str, Tensor], names: Sequence[str]) -> Direction:
    parts = flat.split([like[name].numel() for name in names])
    return {name: part.view_as(like[name]) for name, part in zip(names, parts, strict=True)}


def mean_loss(images: Tensor, labels: Tensor) -> Callable[[nn.Module], float]:
    """The mean cross-entropy of a network on these samples, as a function of the network.

    Raises:
        ConfigError: the network gives more than one score for each class.
    """
    return lambda net: F.cross_entropy(require_scores(net(images)).float(), labels).item()


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Evaluation mode, but with the batch's statistics in the batch norms; nothing of the network is changed by it."""
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    with evaluating(net):
        try:
            for norm in norms:  # without running statistics a norm takes the batch's
                norm.running_mean = norm.running_var = None
            yield
        finally:
            for norm, (mean, variance) in zip(norms, kept, strict=True):
                norm.running_mean, norm.running_var = mean, variance
