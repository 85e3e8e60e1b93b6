"""Which sample comes when: the order of an epoch, its batches, and each rank's share of a batch.

The order is a pure function of (seed, epoch), and the batch size counts the samples of all ranks together: rank r of W takes
the r-th W-th of every batch. Training on two devices therefore sees the batches that one device sees, and a run that goes on
in the middle of an epoch needs one number: how many batches were given before.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dlzoo.data.streams import generator
from dlzoo.errors import ConfigError

__all__ = ["EpochOrder", "EpochPosition", "OrderedBatches"]


class EpochPosition(ABC):
    """Where a loader stands: the epoch, and how many of its batches were given. Lightning calls `set_epoch` on it before each
    epoch.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.given = 0  # batches given so far in this epoch
        self._first = 0  # where the next pass starts; above 0 only after load_state_dict
        self._finished = False

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch."""
        if epoch != self.epoch:
            self._first = self.given = 0
        self.epoch, self._finished = epoch, False

    def start(self) -> int:
        """Begins a pass over the epoch and returns its first batch: 0, or where a loaded state goes on.

        Without `set_epoch` in between, the pass after a finished one is the next epoch.
        """
        if self._finished:
            self.set_epoch(self.epoch + 1)
        first, self._first = self._first, 0
        self.given = first
        return first

    def gave(self, batch: int) -> None:
        """Notes that this batch of the epoch has been given."""
        self.given = batch + 1
        self._finished = self.given >= len(self)

    def state_dict(self) -> dict[str, int]:
        """Where this epoch stands, for a checkpoint. It is the same on every rank and holds for any world size."""
        return {"epoch": self.epoch, "batches": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass goes on where `state` was taken."""
        self.epoch, self._first = int(state["epoch"]), int(state["batches"])
        self.given = self._first
        self._finished = self._first >= len(self)


class EpochOrder(EpochPosition):
    """The order of the samples, cut into batches and shares.

    Args:
        size: samples in the data set.
        batch_size: samples a batch, over all ranks.
        shuffle: a new order for each epoch; otherwise the order of the data set.
        seed: the run's seed.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        rank: which share this process takes.
        world_size: processes that share each batch.

    Raises:
        ConfigError: the batch size is below the number of ranks, or in training no multiple of it; or there are fewer samples
            than ranks.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")
        # gradients are averaged over ranks, so in training each needs as many samples as the others; evaluation adds counts up
        if batch_size < world_size or (shuffle and batch_size % world_size):
            key = "data.batch_size" if shuffle else "data.eval_batch_size"
            raise ConfigError(
                f"the batch size is {batch_size}, which is not a positive multiple of the {world_size} device(s).",
                where=key,
                fix=f"{key}={max(1, round(batch_size / world_size)) * world_size} (it counts all devices together)",
            )
        if size < world_size:
            what = f"{size} sample(s) cannot be shared by {world_size} devices."
            raise ConfigError(what, where="data", fix="use fewer devices, or more data")
        self.size, self.batch_size, self.shuffle, self.seed = size, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size

        full, rest = divmod(size, batch_size)
        if rest and full and drop_last:
            rest = 0
            self._end = full * batch_size
        else:
            self._end = size
        # A rest that cannot give every rank a sample joins the batch before: no rank may run out of batches before another.
        self._batches = full + (rest >= world_size or (rest > 0 and full == 0))

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self._batches

    def permutation(self) -> Tensor:
        """Indices of the samples in the order of this epoch: (size,)."""
        if not self.shuffle:
            return torch.arange(self.size)
        return torch.randperm(self.size, generator=generator("order", self.seed, self.epoch))

    def share(self, batch: int) -> tuple[int, int]:
        """This rank's part of a batch: the first position in the order, and the one past the last."""
        low = batch * self.batch_size
        high = self._end if batch == len(self) - 1 else low + self.batch_size
        count = high - low
        return low + count * self.rank // self.world_size, low + count * (self.rank + 1) // self.world_size


class OrderedBatches:
    """What a loader has that takes the place of a DataLoader, whatever its batches are made of; a subclass iterates."""

    sampler: EpochPosition  # Lightning looks for it by this name
    batch_sampler = None  # and for one beside it

    def __len__(self) -> int:
        return len(self.sampler)

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches were given, not how many were read ahead; it is kept in the checkpoint."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on after the batches that `state` counts."""
        self.sampler.load_state_dict(state)
