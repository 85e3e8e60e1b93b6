"""Published weights of EfficientNet and EfficientNetV2: torchvision's for ImageNet.

torchvision numbers the parts of a block by their place, so that the same part has another number where the first is left out,
and computes squeeze and excitation by 1x1 convolutions, where ours are dense layers of the same weights.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlzoo.pretrained import Source, imagenet
from dlzoo.pretrained.renaming import converter

__all__ = ["SOURCES", "convert"]


def _source(file: str, top1: str, top5: str, side: int, recipe: int = 1) -> Source:
    year = "Tan, Le 2021" if "_v2_" in file else "Tan, Le 2019"
    found = imagenet(file, top1, top5, f"{year}, torchvision's IMAGENET1K_V{recipe}", side)
    if "_v2_l" in file:  # the only one not normalised with ImageNet's numbers
        found = dataclasses.replace(found, mean=(0.5,) * 3, std=(0.5,) * 3)
    return found


SOURCES = {
    "efficientnet_b0": _source("efficientnet_b0_rwightman-7f5810bc.pth", "77.692", "93.532", 224),
    "efficientnet_b1": _source("efficientnet_b1-c27df63c.pth", "79.838", "94.934", 240, recipe=2),
    "efficientnet_b2": _source("efficientnet_b2_rwightman-c35c1473.pth", "80.608", "95.310", 288),
    "efficientnet_b3": _source("efficientnet_b3_rwightman-b3899882.pth", "82.008", "96.054", 300),
    "efficientnet_b4": _source("efficientnet_b4_rwightman-23ab8bcd.pth", "83.384", "96.594", 380),
    "efficientnet_b5": _source("efficientnet_b5_lukemelas-1a07897c.pth", "83.444", "96.628", 456),
    "efficientnet_b6": _source("efficientnet_b6_lukemelas-24a108a5.pth", "84.008", "96.916", 528),
    "efficientnet_b7": _source("efficientnet_b7_lukemelas-c5b4e57e.pth", "84.122", "96.908", 600),
    "efficientnet_v2_s": _source("efficientnet_v2_s-dd5fe13b.pth", "84.228", "96.878", 384),
    "efficientnet_v2_m": _source("efficientnet_v2_m-dc08266a.pth", "85.112", "97.156", 480),
    "efficientnet_v2_l": _source("efficientnet_v2_l-59c71312.pth", "85.808", "97.788", 480),
}

MBCONV = ("expand", "depthwise", "excite", "project")
ENDS = (
    (r"^features\.0\.", "stem."),
    (r"^features\.[78]\.([01])\.(\w+)$", r"last.\1.\2"),  # 8 but in V2-S, which has a stage less
    (r"^classifier\.1\.", "head."),
    (r"\.excite\.fc1\.", ".excite.squeeze."),
    (r"\.excite\.fc2\.", ".excite.excite."),
)


def _stages(numbers: range, parts: tuple[str, ...]) -> list[tuple[str, str]]:
    """The rules of stages whose blocks have these parts; theirs count from 1, for the stem is their 0."""
    return [
        (rf"^features\.{number}\.(\d+)\.block\.{place}\.", rf"stages.{number - 1}.\1.{part}.")
        for number in numbers
        for place, part in enumerate(parts)
    ]


# the blocks of the first stage do not widen
_V1 = converter((*_stages(range(1, 2), MBCONV[1:]), *_stages(range(2, 8), MBCONV), *ENDS))
_V2 = converter(
    (
        *_stages(range(1, 2), ("fused",)),
        *_stages(range(2, 4), ("fused", "project")),
        *_stages(range(4, 8), MBCONV),
        *ENDS,
    )
)


def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; the tensors are shared, not copied.

    Raises:
        CheckpointError: there are no tensors in it, or some that this family does not have.
    """
    converted = (_V2 if "_v2_" in name else _V1)(name, state_dict)
    dense = (".squeeze.weight", ".excite.weight")
    return {key: tensor.flatten(1) if key.endswith(dense) else tensor for key, tensor in converted.items()}
