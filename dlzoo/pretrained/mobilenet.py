"""Published weights of MobileNetV2: torchvision's for ImageNet."""

import re

from dlzoo.pretrained import imagenet
from dlzoo.pretrained.renaming import converter

__all__ = ["SOURCES", "convert"]

SOURCES = {
    "mobilenet_v2": imagenet(
        "mobilenet_v2-7ebf99e0.pth", "72.154", "90.822", "Sandler et al. 2018, torchvision's IMAGENET1K_V2"
    ),
}

BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of each stage


def _block(match: re.Match[str]) -> str:
    """Theirs are counted through all stages, from 1, the stem being 0."""
    block, stage = int(match[1]) - 1, 0
    while block >= BLOCKS[stage]:
        block, stage = block - BLOCKS[stage], stage + 1
    return f"stages.{stage}.{block}."


convert = converter(
    (
        (r"^features\.0\.", "stem."),
        (r"^features\.18\.", "last."),
        # the first block has no expansion, and so its convolutions are counted one lower
        (r"^features\.1\.conv\.2\.", "features.1.conv.3."),
        (r"^features\.1\.conv\.1\.", "features.1.conv.2."),
        (r"^features\.1\.conv\.0\.", "features.1.conv.1."),
        (r"\.conv\.0\.", ".expand."),
        (r"\.conv\.1\.", ".depthwise."),
        (r"\.conv\.2\.", ".project.0."),
        (r"\.conv\.3\.", ".project.1."),
        (r"^features\.(\d+)\.", _block),
        (r"^classifier\.1\.", "head."),
    )
)
