"""Short recordings as LightningDataModules: in memory as 16-bit numbers, augmented a whole batch at a time on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from dlzoo.data.waveform_batches import FULL_SCALE, WaveformAugment, WaveformBatches
from dlzoo.data.waveforms import WaveformPreprocess, read_waveform
from dlzoo.datamodules.in_memory import InMemorySplits

__all__ = ["InMemoryWaveforms"]


class InMemoryWaveforms(InMemorySplits):
    """What all sets of short recordings share: their augmentation, their preprocessing, their loaders.

    A data set is a subclass that sets the class attributes and reads its files: recordings (N, T) as int16. One that publishes
    a validation split overrides `cut`.

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
        super().__init__(
            channels=1,
            num_classes=num_classes,
            in_channels=in_channels,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
        )
        self.augment = WaveformAugment(shift, gain)
        self.preprocess = WaveformPreprocess(sample_rate, samples, normalize)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.preprocess.samples,)

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` test recordings as the network gets them, and their labels: (count, 1, T), (count,)."""
        return self.splits.test_images[:count, None].float() / FULL_SCALE, self.splits.test_labels[:count]

    def recording(self, content: bytes, name: str) -> Tensor:
        """The content of a file at the network's rate and length: (T,), int16."""
        wave = self.preprocess.prepare(read_waveform(content, self.preprocess.sample_rate, name))
        return (wave * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)

    def batches(self, samples: Tensor, labels: Tensor, train: bool) -> WaveformBatches:
        return WaveformBatches(
            samples,
            labels,
            batch_size=self.batch_size if train else self.eval_batch_size,
            augment=self.augment if train else None,
            seed=self.seed,
            **self.placed(),
            **(self.training() if train else {}),
        )
