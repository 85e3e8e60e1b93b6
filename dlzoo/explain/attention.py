"""Where the heads of a network look: the weights of all its attention, read off during one forward pass.

A layer of attention is told by what it can: it has `heads`, and `weights` takes what its `forward` is called with and gives the
weights by the plain formula. The fused kernels that compute the answer keep none.

Letters: B batch, h heads, T questions, S keys.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError
from dlzoo.explain.layers import evaluating

__all__ = ["attention_maps"]


def attention_maps(net: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """The weights of each layer of attention, by the layer's name, in the order in which they are asked.

    Args:
        net: the network; nothing of it is changed.
        inputs: what its forward pass takes.

    Shape:
        -> (B, h, T, S) each; rows sum to 1, or to 0 where a mask shows nothing.

    Raises:
        ConfigError: there is no attention in it.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            named = {key: value for key, value in named.items() if key != "store"}  # a cache, which is not to be filled twice
            found[name] = module.weights(*given, **named).detach().float()

        return hook

    handles = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, module in net.named_modules()
        if hasattr(module, "heads") and callable(getattr(module, "weights", None))
    ]
    if not handles:
        raise ConfigError(f"{type(net).__name__} has no attention", where="heads", fix="a run of a Transformer or a GPT")
    try:
        with torch.no_grad(), evaluating(net):
            net(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
