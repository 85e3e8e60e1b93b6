"""The filters of the first layer: what a network looks for in the pixels themselves.

They are the only weights that live in the space of pictures, so they can be shown as such: edges of all directions, blobs and
pairs of opposed colours after good training, noise before it or where training went wrong.

Source: Zeiler, Fergus 2013, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, figure 6.

Letters: C channels of the picture, N filters, H W their size.
"""

from torch import Tensor, nn

from dlzoo.errors import ConfigError
from dlzoo.explain.layers import find

__all__ = ["first_layer", "first_layer_filters"]


def first_layer(net: nn.Module) -> str:
    """The name of the first convolution, or of the first linear layer where there is none.

    Raises:
        ConfigError: there is neither.
    """
    for kind in (nn.Conv2d, nn.Linear):
        for name, module in net.named_modules():
            if isinstance(module, kind):
                return name
    raise ConfigError(f"{type(net).__name__} has neither a convolution nor a linear layer", where="layer")


def first_layer_filters(net: nn.Module, shape: tuple[int, int, int], layer: str | None = None) -> Tensor:
    """The filters as pictures in [0, 1]; 0.5 is a weight of 0, and each filter is stretched by its own largest weight.

    Args:
        net: the network.
        shape: (C, H, W) of the network's input, by which the rows of a linear layer become pictures.
        layer: another convolution; what sees neither 1 nor 3 channels is shown as the mean over its channels, in grey.

    Shape:
        -> (N, 1 or 3, H, W).

    Raises:
        ConfigError: the layer has no filters that are pictures.
    """
    name = layer or first_layer(net)
    module = find(net, name)
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear) and module.in_features == shape[0] * shape[1] * shape[2]:
        weight = module.weight.unflatten(1, shape)
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise ConfigError(
            f"the layer {name!r} ({type(module).__name__}) has no filters that could be shown as pictures",
            where="layer",
            fix="a convolution: for networks that read sound or text this picture does not apply",
        )
    weight = weight.detach().float().cpu()
    if weight.shape[1] not in (1, 3):
        weight = weight.mean(1, keepdim=True)
    largest = weight.abs().amax((1, 2, 3), keepdim=True)
    return 0.5 + weight / (2 * largest.clamp(min=1e-12))
