"""Grad-CAM and Grad-CAM++: which places of a picture speak for a class.

The gradient of a class's score tells how much each channel of a layer matters; the channels' maps, weighted so and added up,
show where. Only what speaks for the class is kept (relu), and the small map is stretched over the picture. Grad-CAM weighs a
channel by the mean of its gradient; Grad-CAM++ by a weighted mean of its positive part, so that several small objects count as
much as one.

Source: Selvaraju et al. 2016, Grad-CAM, https://arxiv.org/abs/1610.02391, equations 1 and 2; Chattopadhay et al. 2017,
    Grad-CAM++, https://arxiv.org/abs/1710.11063, equations 13 and 19.
Differs from it: each map is scaled to reach from 0 to 1, with the small constants of the package `grad-cam`, whose maps these
    equal.

Letters: B batch, K classes, C channels of the layer, H W of the picture, h w of the layer's map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.explain.layers import as_map, evaluating, find, last_map, recording, require_pictures, require_scores

__all__ = ["gradcam"]

TINY = 1e-7  # keeps a map of zeros from 0 / 0
SMALL = 1e-6  # the same for the weights of Grad-CAM++; gradients of below a thousandth weigh less by it


def gradcam(
    net: nn.Module, images: Tensor, targets: Sequence[int] | None = None, layer: str | None = None, plus_plus: bool = False
) -> Tensor:
    """How much each place speaks for a class, from 0 to 1.

    Args:
        net: gives one score for each class; it is looked at in evaluation mode and left as it was.
        images: as the network gets them.
        targets: the class asked about, one for each picture; None takes the one that the network chooses.
        layer: whose map is used; None takes the last (`layers.last_map`).
        plus_plus: Grad-CAM++ instead of Grad-CAM.

    Shape:
        images: (B, C, H, W) -> (B, H, W).

    Raises:
        ConfigError: no such layer, one that gives no map, or a network that gives no scores.
        ValueError: targets are not one class for each picture.
    """
    require_pictures(images)
    name = layer or last_map(net, images)
    module = find(net, name)
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"targets must be one class for each of {len(images)} pictures, got {len(targets)}")
    with torch.enable_grad(), evaluating(net), recording(net, [name]) as found:
        scores = require_scores(net(images.detach().requires_grad_()))  # a frozen network has a graph too
        classes = scores.argmax(1) if targets is None else torch.as_tensor(targets, device=scores.device)
        total = scores.gather(1, classes[:, None]).sum()  # no picture sees another: one backward pass serves all
        gradient = as_map(torch.autograd.grad(total, found[name])[0], module)  # (B, C, h, w)
    maps = as_map(found[name].detach(), module)
    weights = _plus_plus(maps, gradient) if plus_plus else gradient.mean((2, 3))  # (B, C)
    heat = torch.einsum("bc,bchw->bhw", weights, maps).relu()
    heat = F.interpolate(_scaled(heat)[:, None].float(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return _scaled(heat)


def _plus_plus(maps: Tensor, gradient: Tensor) -> Tensor:
    """Equation 19's weights of the places, times the positive gradient, summed: (B, C)."""
    square = gradient**2
    total = maps.sum((2, 3), keepdim=True)
    alpha = square / (2 * square + total * gradient * square + SMALL)
    return (alpha * gradient.relu()).sum((2, 3))


def _scaled(heat: Tensor) -> Tensor:
    heat = heat - heat.amin((1, 2), keepdim=True)
    return heat / (heat.amax((1, 2), keepdim=True) + TINY)
