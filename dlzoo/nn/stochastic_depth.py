"""Stochastic depth: in training, whole residual branches are left out at random, another set for each image.

The network that learns is on average shorter, and each block must be of use without its neighbours. What stays is divided by
the probability to stay, so that nothing has to be done in evaluation.

Source: Huang et al. 2016, Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382, section 3.
Differs from it: a branch is dropped for each image on its own, not for the batch as one, and the scaling stands in training,
    not in evaluation; both as in torchvision and timm ("drop path").

Shapes: B batch.
"""

from torch import Tensor, nn

__all__ = ["StochasticDepth"]


class StochasticDepth(nn.Module):
    """Adds a branch to its shortcut, in training without the branch for a part of the images.

    The branch is overwritten where it has the shortcut's type, which saves a tensor: give what was just computed.

    Args:
        probability: to leave the branch of an image out.

    Shape:
        branch (B, ...), shortcut (B, ...) -> (B, ...).

    Raises:
        ValueError: probability is not in [0, 1).
    """

    def __init__(self, probability: float = 0.0) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"probability must be at least 0 and below 1, got {probability}")
        self.probability = probability

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        if self.training and self.probability > 0:
            keep = 1 - self.probability
            mask = branch.new_empty(len(branch), *(1,) * (branch.ndim - 1)).bernoulli_(keep).div_(keep)  # (B, 1, ...)
            branch = branch * mask
        return branch.add_(shortcut) if branch.dtype == shortcut.dtype else branch + shortcut

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
