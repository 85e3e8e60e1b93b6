"""Short recordings as LightningDataModules: in memory as 16-bit numbers, augmented a whole batch at a time on the device."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor

from dlzoo.data.splits import Splits, held_out
from dlzoo.data.waveform_batches import FULL_SCALE, WaveformAugment, WaveformBatches
from dlzoo.data.waveforms import WaveformPreprocess, read_waveform
from dlzoo.errors import DataError

__all__ = ["InMemoryWaveforms"]


class InMemoryWaveforms(LightningDataModule):
    """What all sets of short recordings share: the cut into splits, the loaders, the preprocessing.

    A data set is a subclass that sets the class attributes and reads its files. The published test split is only ever given by
    `test_dataloader` and `test_images`; unless the data set publishes a validation split, one is cut from the training split by
    a fixed permutation.

    Args:
        sample_rate: of the network's input, in hertz; recordings of another rate are resampled once, when they are read.
        samples: length of the input; shorter recordings get silence on both sides, of longer ones the loudest part is kept.
        normalize: bring the loudest sample of each recording to full scale.
        batch_size: recordings a training batch, over all devices together.
        eval_batch_size: recordings a validation or test batch, over all devices together.
        val_size: training recordings that validate; 0 validates on nothing.
        shift: samples, at most, by which a training recording moves.
        gain: decibels, at most, by which its loudness changes.
        seed: of order and augmentation.
        num_classes: what the model is built for; must be the data set's.
        in_channels: likewise; must be 1.

    Batch:
        x (B, 1, T), float32, about -1 to 1; y (B,), int64; both on the training device.

    Raises:
        ValueError: a number does not fit the data set.
    """

    classes: tuple[str, ...]
    published: ClassVar[tuple[int, int]]  # recordings in the training split (validation included) and in the test split
    edition: str = ""

    def __init__(
        self,
        *,
        sample_rate: int,
        samples: int,
        normalize: bool,
        batch_size: int,
        eval_batch_size: int,
        val_size: int,
        shift: int,
        gain: float,
        seed: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        if num_classes != len(self.classes):
            raise ValueError(f"{type(self).__name__} has {len(self.classes)} classes, and num_classes is {num_classes}")
        if in_channels != 1:
            raise ValueError(f"{type(self).__name__} has 1 channel, and in_channels is {in_channels}")
        if not 0 <= val_size < self.published[0]:
            raise ValueError(f"val_size must be in [0, {self.published[0]}), got {val_size}")
        self.batch_size, self.eval_batch_size, self.val_size, self.seed = batch_size, eval_batch_size, val_size, seed
        self.augment = WaveformAugment(shift, gain)
        self.preprocess = WaveformPreprocess(sample_rate, samples, normalize)
        self._splits: Splits | None = None

    @abstractmethod
    def read(self) -> Splits:
        """Reads both splits: recordings (N, T) as int16, labels (N,)."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def train_size(self) -> int:
        """Recordings that are trained on."""
        return self.published[0] - self.val_size

    @property
    def validates(self) -> bool:
        """Whether there are validation recordings."""
        return self.val_size > 0

    @property
    def splits(self) -> Splits:
        """Both published splits, read when first asked for."""
        if self._splits is None:
            splits = self.read()
            found = (len(splits.train_labels), len(splits.test_labels))
            if found != self.published:
                raise DataError(
                    f"expected {self.published[0]} training and {self.published[1]} test recordings, found {found[0]} and "
                    f"{found[1]}.",
                    where=f"the files of {type(self).__name__} under data_dir",
                    fix="get them again from where they are published",
                )
            self._splits = splits
        return self._splits

    def prepare_data(self) -> None:
        """Puts the files in place; Lightning calls it in one process of a machine before the others read them."""
        _ = self.splits

    def setup(self, stage: str | None = None) -> None:
        _ = self.splits

    def train_dataloader(self) -> WaveformBatches:
        kept, _ = self.cut()
        return self._batches(
            self.splits.train_images[kept],
            self.splits.train_labels[kept],
            batch_size=self.batch_size,
            augment=self.augment,
            shuffle=not (self.trainer and self.trainer.overfit_batches),  # overfitting takes the same batches again and again
            drop_last=True,
        )

    def val_dataloader(self) -> WaveformBatches | list[WaveformBatches]:
        _, held = self.cut()
        return self._evaluated(self.splits.train_images[held], self.splits.train_labels[held]) if self.val_size else []

    def test_dataloader(self) -> WaveformBatches:
        return self._evaluated(self.splits.test_images, self.splits.test_labels)

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` test recordings as the network gets them, and their labels: (count, 1, T), (count,)."""
        return self.splits.test_images[:count, None].float() / FULL_SCALE, self.splits.test_labels[:count]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are made on the device: nothing is left to do, and no tree of tensors to walk."""
        if isinstance(batch, tuple) and all(isinstance(tensor, Tensor) and tensor.device == device for tensor in batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def recording(self, content: bytes, name: str) -> Tensor:
        """The content of a file at the network's rate and length: (T,), int16."""
        wave = self.preprocess.prepare(read_waveform(content, self.preprocess.sample_rate, name))
        return (wave * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)

    def cut(self) -> tuple[Tensor, Tensor]:
        """Indices into the training split: those trained on, those that validate."""
        return held_out(len(self.splits.train_labels), self.val_size)

    def _evaluated(self, waves: Tensor, labels: Tensor) -> WaveformBatches:
        return self._batches(waves, labels, batch_size=self.eval_batch_size)

    def _batches(self, waves: Tensor, labels: Tensor, **options: Any) -> WaveformBatches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return WaveformBatches(waves, labels, seed=self.seed, device=device, rank=rank, world_size=world_size, **options)
