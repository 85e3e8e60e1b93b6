"""What a language model expects at each place of a text, beside what comes.

Shapes: T tokens, k candidates.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlzoo.explain.layers import evaluating

__all__ = ["Expected", "next_tokens"]


class Expected(NamedTuple):
    """What was expected after each token but the last.

    Args:
        tokens: the likeliest next ones, the likeliest first: (T - 1, k).
        probabilities: theirs: (T - 1, k).
        true: the probability of the one that comes: (T - 1,).
        rank: how many are likelier than it: (T - 1,), 0 where it was the first choice.
    """

    tokens: Tensor
    probabilities: Tensor
    true: Tensor
    rank: Tensor


def next_tokens(net: nn.Module, text: Tensor, count: int) -> Expected:
    """Asks the network once for the whole text.

    Args:
        net: (1, T) -> (1, T, V), logits of the token after each.
        text: its tokens.
        count: k; of a smaller vocabulary all are given.

    Shape:
        text (T,) -> see `Expected`.

    Raises:
        ValueError: text has fewer than 2 tokens, or count is below 1.
    """
    if len(text) < 2 or count < 1:
        raise ValueError(f"text must be at least 2 tokens and count at least 1, got {len(text)} and {count}")
    with torch.no_grad(), evaluating(net):
        probabilities = net(text[None])[0, :-1].double().softmax(-1)  # (T - 1, V)
    best = probabilities.topk(min(count, probabilities.shape[1]), dim=1)
    true = probabilities.gather(1, text[1:, None])
    return Expected(best.indices, best.values, true[:, 0], (probabilities > true).sum(1))
