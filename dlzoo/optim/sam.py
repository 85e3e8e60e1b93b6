"""The two formulas of sharpness-aware minimisation; callbacks/sam.py puts them around an optimizer's step."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["ascend", "gradient_norm"]


def gradient_norm(parameters: Sequence[Tensor]) -> float:
    """The Euclidean norm of all gradients together; it waits for the device."""
    if not parameters:
        return math.nan
    norms = torch._foreach_norm([parameter.grad for parameter in parameters], 2, dtype=_wide(parameters[0]))
    return torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms])).item()


def ascend(parameters: Sequence[Tensor], scale: float) -> None:
    """w <- w + e, with e = rho g / |g|.

    Source: Foret et al. 2021, arXiv 2010.01412, equation 2, for p = 2.

    Args:
        parameters: each with its gradient.
        scale: rho / |g|.
    """
    torch._foreach_add_(list(parameters), [parameter.grad for parameter in parameters], alpha=scale)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
