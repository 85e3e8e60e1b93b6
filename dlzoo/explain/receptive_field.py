"""The receptive field: which pixels a unit of a layer can see, and which of them it really looks at.

What it can see is a matter of arithmetic: r = 1 + sum over layers of dilation (kernel - 1) times all the strides before. What
it looks at is measured: the gradient of one unit with respect to the pixels. It is far smaller and shaped like a bell, for
there are many more paths from the middle of the field than from its edge.

Source: Araujo, Norris, Sim 2019, Computing Receptive Fields of Convolutional Neural Networks,
    https://doi.org/10.23915/distill.00021, equation 2; Luo et al. 2016, Understanding the Effective Receptive Field, https://arxiv.org/abs/1701.04128.
Differs from it: the field that can be seen is measured too, on a copy in which no gradient can vanish or cancel: positive
    weights, means in place of maxima. So it holds for networks with branches, for which the formula is not made.

Letters: B batch, C channels, H height, W width.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError
from dlzoo.explain.layers import as_map, evaluating, find, require_pictures

__all__ = ["Field", "by_formula", "by_gradient", "effective", "half_width"]


class Field(NamedTuple):
    """A rectangle of pixels: rows top to bottom - 1, columns left to right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left


class _Reached(Exception):
    """The layer has answered: what comes after it need not run, and may not even fit the picture."""


def by_formula(layers: Sequence[tuple[int, int, int]]) -> int:
    """The side of the field of a plain stack of layers.

    Args:
        layers: (kernel, stride, dilation) of each, first to last.
    """
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += dilation * (kernel - 1) * jump
        jump *= stride
    return size


def by_gradient(net: nn.Module, layer: str, shape: tuple[int, int, int]) -> Field:
    """What the middle unit of a layer's map can see of a picture of that shape, cut off at the picture's edge.

    Args:
        net: the network; a copy of it is measured.
        layer: the layer's name.
        shape: (C, H, W) of the picture; need not be the size that the network was trained on.

    Raises:
        ConfigError: no such layer, one that gives no map, or a network that does not take this size.
    """
    gradient = _gradient(_transparent(net), layer, torch.ones(1, *shape, dtype=torch.float64))
    seen = gradient.abs().sum((0, 1)) > 0  # (H, W)
    rows, columns = seen.any(1).nonzero()[:, 0], seen.any(0).nonzero()[:, 0]
    return Field(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def effective(net: nn.Module, layer: str, images: Tensor) -> Tensor:
    """How much the middle unit of a layer's map looks at each pixel, the mean over the pictures, 1 at the most.

    Args:
        net: the network; it is looked at in evaluation mode and left as it was.
        layer: the layer's name.
        images: (B, C, H, W), as the network gets them.

    Shape:
        -> (H, W).

    Raises:
        ConfigError: as for `by_gradient`.
    """
    require_pictures(images)
    heat = _gradient(net, layer, images).float().abs().mean((0, 1)).cpu()
    return heat / heat.max().clamp(min=1e-30)


def half_width(heat: Tensor) -> float:
    """The side of the square as large as all that counts: the pixels above 4.55 % of the largest, two sigmas of a bell."""
    return float((heat > 0.0455 * heat.max()).sum()) ** 0.5


def _gradient(net: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Of the middle unit of the layer's map, all channels together, with respect to the pixels: like x."""
    x, held = x.detach().requires_grad_(), []
    module = find(net, layer)

    def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
        held.append(output)
        raise _Reached

    handle = module.register_forward_hook(stop)
    try:
        with torch.enable_grad(), evaluating(net):
            net(x)
    except _Reached:
        pass
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"the network does not take a picture of {x.shape[2]} x {x.shape[3]}: {str(error).splitlines()[0][:120]}"
        ) from error
    finally:
        handle.remove()
    if not held:
        raise ConfigError(f"the layer {layer!r} is not used in a forward pass", where="layer")
    with torch.enable_grad():
        maps = as_map(held[0], module)  # (B, C, h, w)
        middle = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
        return torch.autograd.grad(middle.sum(), x)[0]


def _transparent(net: nn.Module) -> nn.Module:
    """A copy through which every path from a pixel to a unit has a positive gradient."""
    net = copy.deepcopy(net).double().cpu()
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                kind = (child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, nn.AvgPool2d(*kind))
            elif isinstance(child, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in net.parameters():
            # half a mean: what comes in as 1 stays below the ceiling of a relu6, and is not lost in 64 bits
            parameter.fill_(0.5 / max(parameter[0].numel(), 1)) if parameter.ndim > 1 else parameter.zero_()
    return net
