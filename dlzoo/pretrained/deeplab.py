"""Published weights of DeepLabV3: torchvision's, trained on the images of COCO that hold Pascal VOC's twenty classes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlzoo.pretrained import IMAGENET, TORCHVISION, Source
from dlzoo.pretrained.renaming import converter, unwrap

__all__ = ["SOURCES", "convert"]

PAPER = "Chen et al. 2017, torchvision's COCO_WITH_VOC_LABELS_V1"


def _voc(file: str, miou: str, accuracy: str) -> Source:
    measured = f"COCO val 2017 with Pascal VOC's labels: mIoU {miou} %, pixels {accuracy} %"
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Source(TORCHVISION + file, sha256, "BSD-3-Clause", measured, PAPER, **IMAGENET)


SOURCES = {
    "deeplabv3_resnet50": _voc("deeplabv3_resnet50_coco-cd0a2569.pth", "66.4", "92.4"),
    "deeplabv3_resnet101": _voc("deeplabv3_resnet101_coco-586e9e4e.pth", "67.4", "92.4"),
}

_rename = converter(
    (
        (r"^backbone\.conv1\.", "stem.0."),
        (r"^backbone\.bn1\.", "stem.1."),
        *((rf"^backbone\.layer{i + 1}\.", f"stages.{i}.") for i in range(4)),
        (r"\.bn(\d)\.", r".norm\1."),
        (r"\.downsample\.", ".shortcut."),
        # the branches are 1x1, 3x3 with each rate, and the average, which they count as one of them
        (r"^classifier\.0\.convs\.([0-3])\.", r"aspp.branches.\1."),
        (r"^classifier\.0\.convs\.4\.1\.", "aspp.whole.0."),
        (r"^classifier\.0\.convs\.4\.2\.", "aspp.whole.1."),
        (r"^classifier\.0\.project\.", "aspp.project."),
        (r"^classifier\.1\.", "refine.0."),
        (r"^classifier\.2\.", "refine.1."),
        (r"^classifier\.4\.", "head."),
    )
)


def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; the tensors are shared, not copied.

    Raises:
        CheckpointError: there are no tensors in it, or some that this family does not have.
    """
    # a second classifier, on the third stage, helped the training and has no part in the answer
    return _rename(
        name, {key: value for key, value in unwrap(name, state_dict).items() if not key.startswith("aux_classifier.")}
    )
