"""Parameter groups: which parameters are decayed."""

from typing import Any

from torch import nn

__all__ = ["parameter_groups"]

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
