"""Batches of waveforms that lie in memory, shifted and made louder or softer a whole batch at a time on the training device.

A second of speech is a few thousand 16-bit numbers, so a data set of short recordings fits into memory; then no worker process
is needed: a batch is a gather and one multiplication. A shift is a window of the recording with silence before and after it.

Shapes: N recordings in the data set, B batch, T samples, S largest shift.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.data.order import EpochOrder, OrderedBatches
from dlzoo.data.streams import generator

__all__ = ["WaveformAugment", "WaveformBatches", "WaveformDraws"]

FULL_SCALE = 32_768  # of 16 bits


class WaveformDraws(NamedTuple):
    """The random numbers of an epoch, one row a recording."""

    start: Tensor  # (N,) first sample in the recording with silence around it: 0 to 2 S
    gain: Tensor  # (N,) factor of the samples


class WaveformAugment:
    """How far a recording is moved in time, and how much its loudness changes.

    Args:
        shift: samples, at most, earlier or later; 0 for none.
        gain: decibels, at most, louder or softer; 0 for none. What passes full scale is not cut off: the samples are floats.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, shift: int = 0, gain: float = 0.0) -> None:
        if shift < 0 or gain < 0:
            raise ValueError(f"shift and gain must be at least 0, got {shift} and {gain}")
        self.shift, self.gain = shift, gain

    def draw(self, count: int, *, seed: int, epoch: int) -> WaveformDraws:
        """The random numbers of all recordings for one epoch, on the CPU; both are drawn, so that neither moves the other."""
        random = generator("augment waveforms", seed, epoch)
        start = torch.randint(2 * self.shift + 1, (count,), generator=random)
        decibels = (2 * torch.rand(count, generator=random, dtype=torch.float64) - 1) * self.gain
        return WaveformDraws(start, (10 ** (decibels / 20)).float())


class WaveformBatches(OrderedBatches):
    """Iterates over (x, y) batches of recordings in memory; takes the place of a DataLoader.

    Order and augmentation are pure functions of (seed, epoch, index). Iterating again without `set_epoch` is the next epoch.

    Args:
        waves: (N, T), int16.
        labels: (N,), int64.
        batch_size: recordings a batch, over all ranks together.
        augment: what is done to a batch; None leaves the recordings as they are.
        shuffle: a new order each epoch.
        seed: the run's seed.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        device: where the recordings are kept and augmented, and the batches come from.
        rank: which share of each batch this process takes.
        world_size: processes that share each batch.

    Shape:
        yields x (B, 1, T), float32, about -1 to 1, and y (B,), int64.

    Raises:
        ValueError: waves or labels have another type or shape.
        ConfigError: the batch size does not go with the number of ranks.
    """

    def __init__(
        self,
        waves: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augment: WaveformAugment | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if waves.dtype != torch.int16 or waves.ndim != 2:
            raise ValueError(f"waves must be int16 of shape (N, T), got {waves.dtype} of shape {tuple(waves.shape)}")
        if labels.dtype != torch.int64 or labels.shape != waves.shape[:1]:
            raise ValueError(f"labels must be int64 of shape ({len(waves)},), got {labels.dtype} {tuple(labels.shape)}")
        self.sampler = EpochOrder(
            len(waves),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        self.batch_size, self.augment, self.device = batch_size, augment or WaveformAugment(), torch.device(device)
        self.labels = labels.to(self.device)
        self.samples = waves.shape[1]
        self.waves = F.pad(waves.to(self.device), (self.augment.shift,) * 2)  # (N, T + 2 S)
        self.offsets = torch.arange(self.samples, device=self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.sampler
        first = order.start()
        index = order.permutation()
        start, gain = self.augment.draw(len(self.waves), seed=order.seed, epoch=order.epoch)
        # where each window begins in the flat samples
        begin = (index * self.waves.shape[1] + start[index]).to(self.device)
        factor = (gain[index] / FULL_SCALE).to(self.device)
        labels = self.labels[index.to(self.device)]
        for batch in range(first, len(order)):
            low, high = order.share(batch)
            x = self.waves.view(-1)[begin[low:high, None] + self.offsets].float()  # (B, T)
            x *= factor[low:high, None]
            order.gave(batch)
            yield x[:, None], labels[low:high]
