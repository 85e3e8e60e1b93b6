"""Published weights of ConvNeXt: torchvision's for ImageNet."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlzoo.pretrained import Source, imagenet
from dlzoo.pretrained.renaming import converter

__all__ = ["SOURCES", "convert"]

SOURCES: dict[str, Source] = {
    "convnext_tiny": imagenet("convnext_tiny-983f1562.pth", "82.520", "96.146", "Liu et al. 2022, torchvision's IMAGENET1K_V1"),
}

PARTS = {"0": "depthwise", "2": "norm", "3": "expand", "5": "project"}  # of a block; torchvision counts its permutations too

_rename = converter(
    [
        (r"^features\.0\.", "stem."),
        *((rf"^features\.{i}\.", f"stages.{i - 1}.") for i in range(1, 8)),
        *((rf"\.block\.{theirs}\.", f".{ours}.") for theirs, ours in PARTS.items()),
        (r"\.layer_scale$", ".scale"),
        (r"^classifier\.0\.", "norm."),
        (r"^classifier\.2\.", "head."),
    ]
)


def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; the tensors are shared, not copied.

    Raises:
        CheckpointError: there are no tensors in it, or some that this family does not have.
    """
    converted = _rename(name, state_dict)  # a scale of theirs is (C, 1, 1)
    return {key: tensor.flatten() if key.endswith(".scale") else tensor for key, tensor in converted.items()}
