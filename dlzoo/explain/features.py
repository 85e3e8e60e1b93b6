"""Feature maps: what is left of a picture inside the network, layer after layer.

The first layers keep the picture and its edges; deeper ones give up where for what, until a few channels answer to a whole
object.

Source: Zeiler, Fergus 2013, https://arxiv.org/abs/1311.2901, section 4.

Letters: B batch, C channels, h w of a layer's map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlzoo.explain.layers import as_map, evaluating, find, maps_by_size, recording, require_pictures

__all__ = ["feature_maps", "liveliest"]


def feature_maps(net: nn.Module, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The outputs of layers as maps.

    Args:
        net: the network; it is looked at in evaluation mode and left as it was.
        images: (B, C, H, W), as the network gets them.
        layers: their names; None takes the last layer of each size of map.

    Shape:
        -> layer: (B, C, h, w).

    Raises:
        ConfigError: no such layer, or one that gives no map.
    """
    require_pictures(images)
    names = list(layers) if layers is not None else maps_by_size(net, images)
    with torch.no_grad(), evaluating(net), recording(net, names) as found:
        net(images)
    return {name: as_map(found[name], find(net, name)) for name in names}


def liveliest(maps: Tensor, count: int) -> Tensor:
    """The channels of one picture's maps whose values differ most from place to place, the liveliest first.

    Args:
        maps: (C, h, w).
        count: how many at most.
    """
    return maps.float().var((1, 2), correction=0).topk(min(count, len(maps))).indices
