"""Parameter groups: which parameters are decayed, and which are trained at a smaller rate."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dlzoo.optim.stages import stages

__all__ = ["by_stage", "parameter_groups"]

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(net: nn.Module, decay_norms_and_biases: bool = True) -> list[nn.Parameter] | list[dict[str, Any]]:
    """What an optimizer is built from: the trained parameters, with those that are not decayed in a group of their own.

    Source: Goyal et al. 2017, arXiv 1706.02677, section 5.1; He et al. 2019, arXiv 1812.01187, section 3.1.

    Args:
        net: its parameters.
        decay_norms_and_biases: False keeps the decay from the parameters of norms and from whatever has fewer than two
            dimensions: biases, scales of layers.

    Returns:
        the parameters, or two groups. The first holds the weights, with the optimizer's own decay; a group that would be
        empty is left out.
    """
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if decay_norms_and_biases:
        return trained
    of_norms = {
        id(parameter) for module in net.modules() if isinstance(module, NORMS) for parameter in module.parameters(recurse=False)
    }
    weights = [parameter for parameter in trained if parameter.ndim > 1 and id(parameter) not in of_norms]
    rest = [parameter for parameter in trained if parameter.ndim <= 1 or id(parameter) in of_norms]
    groups = [{"params": weights}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def by_stage(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    *,
    build: Callable[..., Optimizer],
    net: nn.Module,
    decay: float,
) -> Optimizer:
    """An optimizer with a smaller rate for each earlier stage of a network: discriminative rates.

    Source: Howard, Ruder 2018, arXiv 1801.06146, section 3.2.

    Args:
        parameters: what `parameter_groups` gives; other settings of a group are kept.
        build: makes the optimizer of groups. Its rate is the head's.
        net: whose parameters they are; `optim.stages` says what its stages are.
        decay: the rate of a stage as a share of the next one's.

    Returns:
        the optimizer; the head's groups come first, and those that would be empty are left out.
    """
    of_stage = {name: number for number, names in enumerate(reversed(stages(net).values())) for name in names}
    distance = {id(parameter): of_stage[name] for name, parameter in net.named_parameters()}
    given = list(parameters)
    groups = given if isinstance(given[0], dict) else [{"params": given}]
    split = []
    for number in range(max(of_stage.values()) + 1):
        for group in groups:
            members = [parameter for parameter in group["params"] if distance[id(parameter)] == number]
            if members:
                split.append((number, {**group, "params": members}))
    optimizer = build([group for _, group in split])
    for (number, _), group in zip(split, optimizer.param_groups, strict=True):
        group["lr"] *= decay**number
    return optimizer
