"""Occlusion: cover a part of the picture and see how much less sure the network is of its class.

It looks at nothing but the scores, so it holds for any network, and what it says needs no theory: this much of the probability
hung on that part. A place's value is the mean drop over all the patches that covered it.

Source: Zeiler, Fergus 2013, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, section 4.2.
Differs from it: the drops of overlapping patches are averaged over each pixel, so that the map has the picture's size.

Letters: C channels, H height, W width.
"""

import torch
from torch import Tensor, nn

from dlzoo.explain.layers import evaluating, require_pictures, require_scores

__all__ = ["occlusion"]


def occlusion(
    net: nn.Module,
    image: Tensor,
    target: int | None = None,
    patch: int | None = None,
    stride: int | None = None,
    batch_size: int = 64,
) -> Tensor:
    """How much probability of a class is lost where a patch covers the picture; below 0 where covering helps.

    The patch is 0 in what the network gets, which is the mean colour of the data.

    Args:
        net: gives one score for each class; it is looked at in evaluation mode and left as it was.
        image: one picture as the network gets it.
        target: the class; None takes the one that the network chooses.
        patch: side of the square that covers; None takes a quarter of the shorter side.
        stride: pixels from one patch to the next; None takes a quarter of the patch. The last patch of a row ends at the edge.
        batch_size: covered pictures at a time.

    Shape:
        image: (C, H, W) -> (H, W).

    Raises:
        ConfigError: the network gives no scores.
        ValueError: a patch that does not fit the picture, or a stride that leaves gaps.
    """
    require_pictures(image[None])
    height, width = image.shape[1:]
    patch = patch or max(min(height, width) // 4, 1)
    stride = stride or max(patch // 4, 1)
    if not 1 <= patch <= min(height, width):
        raise ValueError(f"patch must be from 1 to {min(height, width)}, got {patch}")
    if not 1 <= stride <= patch:
        raise ValueError(f"stride must be from 1 to the patch's side, {patch}, got {stride}")
    places = [(top, left) for top in _starts(height, patch, stride) for left in _starts(width, patch, stride)]
    lost, times = torch.zeros(height, width), torch.zeros(height, width)
    with torch.no_grad(), evaluating(net):
        before = require_scores(net(image[None]))[0].float().softmax(0)
        target = int(before.argmax()) if target is None else target
        for start in range(0, len(places), batch_size):
            some = places[start : start + batch_size]
            covered = image.repeat(len(some), 1, 1, 1)
            for index, (top, left) in enumerate(some):
                covered[index, :, top : top + patch, left : left + patch] = 0
            drops = (before[target] - net(covered).float().softmax(1)[:, target]).cpu()
            for (top, left), drop in zip(some, drops, strict=True):
                lost[top : top + patch, left : left + patch] += drop
                times[top : top + patch, left : left + patch] += 1
    return lost / times


def _starts(length: int, patch: int, stride: int) -> list[int]:
    last = length - patch
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]
