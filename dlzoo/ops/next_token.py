"""From logits to the next token: what makes a model's text less dull, or less wild.

Temperature divides the logits. Top-k and top-p (the nucleus) forbid what is unlikely: all but the k best, or all but the fewest
that hold a share p of the probability. The repetition penalty makes less likely what was said already. Each is a function of
logits that gives logits, minus infinity for what may not follow, so that they chain: the penalty first, top-p last as a rule.

Source: top-k: Fan, Lewis, Dauphin 2018, https://arxiv.org/abs/1805.04833, section 5.4; top-p: Holtzman et al. 2019,
    https://arxiv.org/abs/1904.09751, section 3.1; penalty: Keskar et al. 2019, https://arxiv.org/abs/1909.05858, section 4.1.
Differs from it: the penalty multiplies logits below 0, as transformers does; divided, as the paper has it, they would gain.

Shapes: B rows, T tokens so far, V vocabulary.
"""

import torch
from torch import Tensor

__all__ = ["draw", "repetition_penalty", "temperature", "top_k", "top_p"]


def temperature(logits: Tensor, value: float) -> Tensor:
    """Sharper below 1, flatter above; at 0 only the best is left, the first of equals.

    Shape:
        (..., V) -> (..., V).

    Raises:
        ValueError: value is below 0.
    """
    if value < 0:
        raise ValueError(f"temperature must be at least 0, got {value}")
    if value:
        return logits / value
    best = logits.argmax(-1, keepdim=True)
    return torch.full_like(logits, float("-inf")).scatter(-1, best, logits.gather(-1, best))


def top_k(logits: Tensor, k: int) -> Tensor:
    """Forbids all but the k best; those equal to the last of them stay too.

    Shape:
        (..., V) -> (..., V).

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, float("-inf"))


def top_p(logits: Tensor, p: float) -> Tensor:
    """Forbids all but the fewest that together have at least the probability p; the best always stays.

    Shape:
        (..., V) -> (..., V).

    Raises:
        ValueError: p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be above 0 and at most 1, got {p}")
    if p == 1:
        return logits
    ordered, order = logits.sort(descending=True, stable=True)
    probabilities = ordered.float().softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what the better ones have
    forbidden = before >= p
    forbidden[..., 0] = False
    return logits.masked_fill(torch.zeros_like(forbidden).scatter(-1, order, forbidden), float("-inf"))


def repetition_penalty(logits: Tensor, tokens: Tensor, penalty: float, seen: Tensor | None = None) -> Tensor:
    """Divides the logits of tokens that occurred, if they are above 0, and multiplies them if below.

    Args:
        logits: of what comes next.
        tokens: all so far.
        penalty: 1 for none; the paper's is 1.2.
        seen: which of the tokens count, (B, T) boolean; None for all. False for the padding.

    Shape:
        logits (B, V), tokens (B, T) -> (B, V).

    Raises:
        ValueError: penalty is not above 0.
    """
    if penalty <= 0:
        raise ValueError(f"penalty must be above 0, got {penalty}")
    counts = torch.ones_like(tokens) if seen is None else seen.to(tokens.dtype)
    occurred = torch.zeros(logits.shape, dtype=tokens.dtype, device=logits.device).scatter_add(-1, tokens, counts) > 0
    return torch.where(occurred, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A token of each row, as likely as its logits say: (B, V) -> (B,)."""
    return torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0]
