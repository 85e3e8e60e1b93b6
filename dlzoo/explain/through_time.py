"""How far back a language model's last answer depends on what it read: gradients through a text.

The loss of the last token is differentiated for the vector of each token before it. Of a recurrent network the gradient comes
back through all steps between, and fades; attention reaches any place in one step.

Source: Bengio, Simard, Frasconi 1994, https://doi.org/10.1109/72.279181, section 3.

Shapes: B texts, T tokens, F features of a token's vector.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.errors import ConfigError
from dlzoo.explain.layers import evaluating

__all__ = ["input_gradients"]


def input_gradients(net: nn.Module, tokens: Tensor) -> Tensor:
    """The norm of d loss / d vector of each token but the last, where the loss is of the last token alone; the mean over texts.

    Args:
        net: (B, T) -> (B, T, V), with a table of vectors that its tokens are looked up in.
        tokens: texts of one length; the last token is the one that is predicted.

    Shape:
        (B, T + 1) -> (T,), float64, the first token first.

    Raises:
        ValueError: texts of fewer than 2 tokens.
        ConfigError: the network looks no tokens up.
    """
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(f"tokens must be of shape (B, T + 1) with at least 2 tokens, got {tuple(tokens.shape)}")
    x, y = tokens[:, :-1], tokens[:, -1]
    vectors: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if vectors or given[0].shape != x.shape:  # the tokens' own table is the first that is read
            return None
        vectors.append(output.detach().requires_grad_())
        return vectors[0]

    handles = [module.register_forward_hook(keep) for module in net.modules() if isinstance(module, nn.Embedding)]
    try:
        with torch.enable_grad(), evaluating(net):
            logits = net(x)
            if not vectors:
                raise ConfigError(f"{type(net).__name__} looks no tokens up in a table of vectors", where="gradients")
            loss = F.cross_entropy(logits[:, -1].double(), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, vectors)
    finally:
        for handle in handles:
            handle.remove()
    return gradient.double().norm(dim=2).mean(0)
