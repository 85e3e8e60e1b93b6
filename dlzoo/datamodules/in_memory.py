"""What the LightningDataModules of data sets in memory share: the check against the model, the splits, the batches' device."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor

from dlzoo.data.splits import Splits, held_out
from dlzoo.errors import DataError

__all__ = ["InMemory", "InMemorySplits"]


class InMemory(LightningDataModule):
    """A data set that is read once, kept in memory, and given in batches that are made on the training device.

    A kind of data is a subclass that makes the loaders; a data set is a subclass of that, which sets the class attributes and
    reads its files.

    Args:
        batch_size: samples a training batch, over all devices together; None where something else limits it.
        eval_batch_size: samples a validation or test batch, over all devices together; likewise.
        seed: of order and augmentation.
    """

    classes: tuple[str, ...]
    edition: str = ""  # how the data found differ from the published ones; known after setup

    def __init__(self, *, batch_size: int | None, eval_batch_size: int | None, seed: int) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self._splits: Any = None

    def refuse_others(self, channels: int, num_classes: int, in_channels: int) -> None:
        """Holds what the model is built for against the data.

        Args:
            channels: of the data.
            num_classes: of the model.
            in_channels: likewise.

        Raises:
            ValueError: they are not the data set's.
        """
        if num_classes != len(self.classes):
            raise ValueError(f"{type(self).__name__} has {len(self.classes)} classes, and num_classes is {num_classes}")
        if in_channels != channels:
            raise ValueError(f"{type(self).__name__} has {channels} channel(s), and in_channels is {in_channels}")

    @abstractmethod
    def read(self) -> Any:
        """Reads all splits, downloading what is missing."""

    @abstractmethod
    def check(self, splits: Any) -> None:
        """Raises a DataError if the files are not this data set: they may be whole and yet be another."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def splits(self) -> Any:
        """All splits, read when first asked for."""
        if self._splits is None:
            splits = self.read()
            self.check(splits)
            self.edition = getattr(splits, "edition", self.edition)
            self._splits = splits
        return self._splits

    def prepare_data(self) -> None:
        """Puts the files in place; Lightning calls it in one process of a machine before the others read them."""
        _ = self.splits

    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are made on the device: nothing is left to do, and no tree of tensors to walk."""
        if isinstance(batch, tuple) and all(isinstance(tensor, Tensor) and tensor.device == device for tensor in batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def placed(self) -> dict[str, Any]:
        """Where the batches are made: the arguments device, rank and world_size of a loader."""
        if self.trainer is None:
            return {"device": torch.device("cpu"), "rank": 0, "world_size": 1}
        device = self.trainer.strategy.root_device
        return {"device": device, "rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def training(self) -> dict[str, Any]:
        """What sets a training loader apart: the arguments shuffle and drop_last. Overfitting takes the same batches again."""
        return {"shuffle": not (self.trainer and self.trainer.overfit_batches), "drop_last": True}

    def unlike(self, problem: str) -> DataError:
        """The error for files that are not this data set."""
        where = f"the files of {type(self).__name__} under data_dir"
        return DataError(problem, where=where, fix="get them again from where they are published")


class InMemorySplits(InMemory):
    """Samples with one label each, in two published splits; what validates is cut from the training split.

    The test split is only ever given by `test_dataloader` and `test_images`. Arguments as `InMemory`, and:

    Args:
        channels: of the data.
        num_classes: what the model is built for; must be the data set's.
        in_channels: likewise.
        val_size: training samples that validate, by a fixed permutation; 0 validates on nothing.

    Raises:
        ValueError: num_classes or in_channels is not the data set's, or val_size leaves nothing to train on.
    """

    published: ClassVar[tuple[int, int]]  # samples in the training split (validation included) and in the test split

    def __init__(
        self,
        *,
        channels: int,
        num_classes: int,
        in_channels: int,
        batch_size: int,
        eval_batch_size: int,
        val_size: int,
        seed: int,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        self.refuse_others(channels, num_classes, in_channels)
        if not 0 <= val_size < self.published[0]:
            raise ValueError(f"val_size must be in [0, {self.published[0]}), got {val_size}")
        self.val_size = val_size

    @abstractmethod
    def batches(self, samples: Tensor, labels: Tensor, train: bool) -> Any:
        """A loader of these samples."""

    @property
    def train_size(self) -> int:
        """Samples that are trained on."""
        return self.published[0] - self.val_size

    @property
    def validates(self) -> bool:
        """Whether there are validation samples."""
        return self.val_size > 0

    def train_dataloader(self) -> Any:
        kept, _ = self.cut()
        return self.batches(self.splits.train_images[kept], self.splits.train_labels[kept], train=True)

    def val_dataloader(self) -> Any:
        _, held = self.cut()
        return (
            self.batches(self.splits.train_images[held], self.splits.train_labels[held], train=False) if self.val_size else []
        )

    def test_dataloader(self) -> Any:
        return self.batches(self.splits.test_images, self.splits.test_labels, train=False)

    def cut(self) -> tuple[Tensor, Tensor]:
        """Indices into the published training split: those trained on, those that validate."""
        return held_out(len(self.splits.train_labels), self.val_size)

    def check(self, splits: Splits) -> None:
        found = (len(splits.train_labels), len(splits.test_labels))
        shapes = tuple(splits.train_images.shape[1:]), tuple(splits.test_images.shape[1:])
        if found != self.published or set(shapes) != {self.sample_shape}:
            raise self.unlike(
                f"expected {self.published[0]} training and {self.published[1]} test samples of {self.sample_shape}, "
                f"found {found[0]} of {shapes[0]} and {found[1]} of {shapes[1]}."
            )
        labels = torch.cat([splits.train_labels, splits.test_labels])
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise self.unlike(
                f"the labels reach from {labels.min()} to {labels.max()}, and there are {len(self.classes)} classes."
            )

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample as it is kept."""
