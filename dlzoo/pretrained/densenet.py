"""Published weights of the densely connected networks: torchvision's for ImageNet."""

import re

from dlzoo.pretrained import imagenet
from dlzoo.pretrained.renaming import converter

__all__ = ["SOURCES", "convert"]

PAPER = "Huang et al. 2016, the authors' Torch weights, as torchvision's IMAGENET1K_V1"

SOURCES = {
    "densenet121": imagenet("densenet121-a639ec97.pth", "74.434", "91.972", PAPER),
    "densenet161": imagenet("densenet161-8d451a50.pth", "77.138", "93.560", PAPER),
    "densenet169": imagenet("densenet169-b2777c0a.pth", "75.600", "92.806", PAPER),
    "densenet201": imagenet("densenet201-c1103571.pth", "76.896", "93.370", PAPER),
}


def _stage(match: re.Match[str]) -> str:
    """Blocks and transitions take turns; theirs count from 1."""
    return f"stages.{2 * int(match[2]) - (2 if match[1] == 'denseblock' else 1)}."


convert = converter(
    (
        (r"^features\.conv0\.", "stem.0."),
        (r"^features\.norm0\.", "stem.1."),
        (r"^features\.norm5\.", "norm."),
        (r"^features\.(denseblock|transition)(\d+)\.", _stage),
        (r"\.denselayer(\d+)\.", lambda match: f".layers.{int(match[1]) - 1}."),
        (r"\.(norm|conv)\.([12])\.", r".\1\2."),  # the files are older than torch's ban on dots in names
        (r"^classifier\.", "head."),
    )
)
