"""Handwritten digits, 8x8: real, small, and there without a download, because scikit-learn carries them."""

import gzip
import importlib.util
from pathlib import Path

import torch

from dlzoo.data.splits import Splits, held_out
from dlzoo.datamodules.in_memory_images import InMemoryImages
from dlzoo.errors import DataError

__all__ = ["Digits"]

IMAGES, TEST_SIZE = 1797, 360


class Digits(InMemoryImages):
    """The 1,797 digits of scikit-learn: 1,437 train (180 of them validate), 360 test, cut by a fixed permutation.

    They are what the UCI repository publishes as the test part of "Optical Recognition of Handwritten Digits"; there is no
    published split of them.

    Source: Alpaydin, Kaynak 1998, https://doi.org/10.24432/C50P49.

    Args:
        data_dir: where `digits/digits.csv.gz` is looked for when scikit-learn is not installed.
        batch_size: images a training batch, over all devices together.
        eval_batch_size: images a validation or test batch.
        val_size: training images that validate.
        crop_padding: border round a training image from which a crop is taken.
        flip: mirror half of the training images; a mirrored digit is none, hence off.
        cutout: side of the square that is cut out of a training image.
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: must be 10.
        in_channels: must be 1.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: the side of training images in the first epoch, as a share of the full one; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, 1, 8, 8), float32, normalised; y (B,), int64.
    """

    classes = tuple("0123456789")
    shape = (1, 8, 8)
    mean, std = (0.3057,), (0.3761,)  # of the 1,437 training images (checked by tests/datamodules/test_digits.py)
    published = (IMAGES - TEST_SIZE, TEST_SIZE)

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 64,
        eval_batch_size: int = 360,
        val_size: int = 180,
        crop_padding: int = 1,
        flip: bool = False,
        cutout: int = 0,
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 10,
        in_channels: int = 1,
        randaugment: int = 0,
        grow_from: float = 1.0,
        grow_epochs: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            crop_padding=crop_padding,
            flip=flip,
            cutout=cutout,
            seed=seed,
            channels_last=channels_last,
            num_classes=num_classes,
            in_channels=in_channels,
            randaugment=randaugment,
            grow_from=grow_from,
            grow_epochs=grow_epochs,
        )
        self.data_dir = Path(data_dir)

    def read(self) -> Splits:
        path = _digits_file(self.data_dir)
        try:
            with gzip.open(path, "rt", encoding="ascii") as file:
                table = torch.tensor([[int(value) for value in line.split(",")] for line in file])
            if table.shape != (IMAGES, 65) or table.min() < 0 or table[:, :64].max() != 16 or table[:, 64].max() != 9:
                raise ValueError(f"expected {IMAGES} rows of 64 pixels in 0..16 and a label in 0..9")
        except (OSError, EOFError, ValueError) as error:
            fix = "pip install --force-reinstall scikit-learn"
            raise DataError(f"the digits cannot be read ({error}).", where=str(path), fix=fix) from error
        pixels = ((table[:, :64] * 255 + 8) // 16).to(torch.uint8).view(-1, 1, 8, 8)  # 0..16 -> 0..255, rounded
        labels = table[:, 64].clone()
        train, test = held_out(IMAGES, TEST_SIZE)
        return Splits(pixels[train], labels[train], pixels[test], labels[test])


def _digits_file(data_dir: Path) -> Path:
    """Where the digits lie. scikit-learn is found but not imported: that would take seconds."""
    own = data_dir / "digits" / "digits.csv.gz"
    if own.is_file():
        return own
    spec = importlib.util.find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    what = "the digits come with scikit-learn, which is not installed."
    raise DataError(what, where=str(own), fix="pip install scikit-learn")
