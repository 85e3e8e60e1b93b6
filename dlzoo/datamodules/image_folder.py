"""Your own pictures: one folder a class, read by worker processes."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor

from dlzoo.data.folder import Sample, class_names, pictures
from dlzoo.data.growth import Growth
from dlzoo.data.order import EpochOrder
from dlzoo.data.picture_batches import FolderBatches, PictureFiles
from dlzoo.data.preprocess import Preprocess
from dlzoo.data.randaugment import RandAugment
from dlzoo.data.splits import held_out
from dlzoo.data.unpacked import opened
from dlzoo.errors import DataError

__all__ = ["ImageFolder"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect them


class ImageFolder(LightningDataModule):
    """Pictures in class folders; training takes random crops and flips, evaluation the centre.

    Which of them train is read from the folders:

    - root/train, root/val and root/test with class folders in each: as they are named;
    - root/train and one of root/val, root/test: that one tests, and validation is cut from train;
    - root/train alone, or class folders in root: validation and test are cut off.

    What is cut off is cut by a fixed permutation, the same in every run.

    Args:
        root: the folder; an archive, or a folder that holds nothing but one, is unpacked once.
        image_size: side of the square that the network gets.
        batch_size: images a training batch, over all devices together.
        eval_batch_size: images a validation or test batch, over all devices together.
        val_fraction: of the training pictures, where there is no split for it; 0 validates on nothing.
        test_fraction: of all pictures, where there is no split for it; 0 leaves nothing to test on.
        min_scale: the least share of a picture's area that a training crop takes.
        flip: mirror half of the training pictures.
        num_workers: processes that read, at most as many as there are processor cores; 0 reads in the training process.
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: what the model is built for; must be the number of class folders. None takes their number.
        in_channels: 3 (RGB) or 1 (grey); pictures of other kinds are converted.
        published_at: where the data set is found, for the message where it is missing.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: the side of training pictures in the first epoch, as a share of image_size; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, in_channels, image_size, image_size), float32, normalised; y (B,), int64.

    Raises:
        ValueError: num_classes is not the number of class folders, or a fraction is not in [0, 1).
        DataError: there is no such folder, or no class folders in it.
    """

    edition = ""

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: int = 224,
        batch_size: int = 64,
        eval_batch_size: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_scale: float = 0.08,
        flip: bool = True,
        num_workers: int = 4,
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int | None = None,
        in_channels: int = 3,
        published_at: str = "",
        randaugment: int = 0,
        grow_from: float = 1.0,
        grow_epochs: int = 0,
    ) -> None:
        super().__init__()
        if not (0 <= val_fraction < 1 and 0 <= test_fraction < 1 and 0 < min_scale <= 1):
            raise ValueError(
                "val_fraction and test_fraction must be in [0, 1) and min_scale in (0, 1], "
                f"got {val_fraction}, {test_fraction} and {min_scale}"
            )
        if image_size < 1 or num_workers < 0:
            raise ValueError(f"image_size must be above 0 and num_workers not below 0, got {image_size} and {num_workers}")
        if published_at and not Path(root).exists():
            raise DataError(f"there is no {root}.", where="data.root", fix=f"put {published_at} there, unpacked or not")
        self.root = opened(Path(root))
        self.classes = class_names(self.root)
        if num_classes not in (None, len(self.classes)):
            raise ValueError(f"{root} has {len(self.classes)} class folders, and num_classes is {num_classes}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.min_scale, self.flip = min_scale, flip
        self.num_workers = min(num_workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 8)
        self.seed, self.channels_last = seed, channels_last
        self.randaugment, self.growth = RandAugment(randaugment).magnitude, Growth(grow_from, grow_epochs)
        mean, std = (MEAN, STD) if in_channels == 3 else ((sum(MEAN) / 3,), (sum(STD) / 3,))
        # evaluation cuts the centre out of 8/7 of the size: 224 out of 256
        self.preprocess = Preprocess(in_channels, image_size, image_size, mean, std, resize=round(image_size * 8 / 7))
        self._splits: dict[str, list[Sample]] = {}

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        """Pictures that are trained on."""
        return len(self.splits["train"])

    @property
    def validates(self) -> bool:
        """Whether there are validation pictures."""
        return bool(self.splits["val"])

    @property
    def splits(self) -> dict[str, list[Sample]]:
        """Paths and labels of the splits train, val and test; the folders are searched when first asked for."""
        if not self._splits:
            self._splits = self._search()
        return self._splits

    def prepare_data(self) -> None:
        """Looks whether the pictures are there; nothing is downloaded."""
        _ = self.splits

    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    def train_dataloader(self) -> FolderBatches:
        # overfitting takes the same batches again and again
        shuffle = not (self.trainer and self.trainer.overfit_batches)
        return self._batches("train", batch_size=self.batch_size, shuffle=shuffle, drop_last=True)

    def val_dataloader(self) -> FolderBatches | list[FolderBatches]:
        return self._batches("val", batch_size=self.eval_batch_size) if self.splits["val"] else []

    def test_dataloader(self) -> FolderBatches | list[FolderBatches]:
        return self._batches("test", batch_size=self.eval_batch_size) if self.splits["test"] else []

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """Test pictures from all over the classes as the network gets them, and their labels: (count, C, H, W), (count,).

        Where nothing is left to test on, validation pictures.
        """
        samples = self.splits["test"] or self.splits["val"] or self.splits["train"]
        count = min(count, len(samples))
        chosen = [samples[number * len(samples) // count] for number in range(count)]
        return torch.stack([self.preprocess(path) for path, _ in chosen]), torch.tensor([label for _, label in chosen])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches come normalised on the device already."""
        if isinstance(batch, tuple) and all(isinstance(tensor, Tensor) and tensor.device == device for tensor in batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _search(self) -> dict[str, list[Sample]]:
        if (self.root / "train").is_dir():
            named = {split: pictures(self.root / split, self.classes) for split in ("train", "val", "test") if self._has(split)}
        else:
            named = {"train": pictures(self.root, self.classes)}
        if "test" not in named and "val" in named:
            named["test"] = named.pop("val")
        train = named["train"]
        if "test" not in named:
            train, named["test"] = _cut(train, self.test_fraction)
        if "val" not in named:
            train, named["val"] = _cut(train, self.val_fraction)
        return named | {"train": train}

    def _has(self, split: str) -> bool:
        return (self.root / split).is_dir()

    def _batches(self, split: str, *, batch_size: int, shuffle: bool = False, drop_last: bool = False) -> FolderBatches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        files = PictureFiles(
            self.splits[split],
            self.preprocess,
            train=split == "train",
            seed=self.seed,
            flip=self.flip,
            min_scale=self.min_scale,
            randaugment=self.randaugment,
            growth=self.growth,
        )
        order = EpochOrder(
            len(files),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self.seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        return FolderBatches(files, order, device=device, num_workers=self.num_workers, channels_last=self.channels_last)


def _cut(samples: list[Sample], fraction: float) -> tuple[list[Sample], list[Sample]]:
    """Cuts a share off by a fixed permutation; at least one sample where the share is not 0."""
    count = max(1, round(len(samples) * fraction)) if fraction else 0
    if count >= len(samples):
        raise DataError(f"{len(samples)} picture(s) are too few to cut {fraction:.0%} off.", fix="add pictures")
    kept, held = held_out(len(samples), count)
    return [samples[index] for index in kept], [samples[index] for index in held]
