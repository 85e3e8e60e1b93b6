"""ISBI 2012: thirty slices through a fly's nerve cord under the electron microscope, each pixel cell or membrane."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dlzoo.data.masks import Masked, read_masked
from dlzoo.datamodules.in_memory_masks import InMemoryMasks

__all__ = ["IsbiMembrane"]

SHA256 = "67d6c6779be68cbf305d42d7ea41a078ecd95ad84581efac0cfae14ae632b23e"  # of isbi_membrane.tar
CUT = {"train": slice(0, 20), "val": slice(20, 25), "test": slice(25, 30)}


class IsbiMembrane(InMemoryMasks):
    """The training part of the ISBI 2012 challenge: 30 slices of 512x512, of which 20 train, 5 validate and 5 test.

    The labels of the challenge's own test part were never published, so slices of the training part are held out: 20 to 24
    validate and 25 to 29, the other end of the stack from most of the training, test. They are the same in every run. Figures
    are therefore not those of the challenge's table; `edition` says so.

    Found in data_dir/isbi_membrane: the folders image and label, or isbi_membrane.tar with those in it.

    Source: Arganda-Carreras et al. 2015, Crowdsourcing the creation of image segmentation algorithms for connectomics,
        https://doi.org/10.3389/fnana.2015.00142.

    Args:
        data_dir: where the data sets lie.
        batch_size: crops a training batch, over all devices together.
        eval_batch_size: slices a validation or test batch, over all devices together.
        crop: height and width of a training crop; None takes the whole slice.
        crops: of each slice in an epoch.
        flip: "all" lays a crop in one of eight ways, for a slice has no above; "none", "sideways".
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: must be 2.
        in_channels: must be 1.
        ignore_index: must be 255, which no pixel has: every pixel is labelled.

    Batch:
        x (B, 1, H, W), float32, normalised; y (B, H, W), int64: 0 membrane, 1 cell.
    """

    classes = ("membrane", "cell")
    shape = (1, 512, 512)
    mean, std = (0.4865,), (0.1665,)  # of the training slices, over all pixels
    published = (20, 5, 5)
    unlabelled = 255
    edition = "ISBI 2012, 5 slices of the published training part held out: not the challenge's test"

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 4,
        eval_batch_size: int = 1,
        crop: Sequence[int] | None = (256, 256),
        crops: int = 4,
        flip: Literal["none", "sideways", "all"] = "all",
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 2,
        in_channels: int = 1,
        ignore_index: int = 255,
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
        source = "github.com/zhixuhao/unet, data/membrane/train"
        images, masks = read_masked(self.data_dir / "isbi_membrane", {"stack": ("image", "label")}, 1, SHA256, source)["stack"]
        masks = (masks >= 128).byte()  # 255 is cell
        return {split: Masked(images[cut], masks[cut]) for split, cut in CUT.items()}
