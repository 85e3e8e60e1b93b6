"""Batches of pairs of sentences: those of about one length together, and of about one cost each.

A row that is shorter than the longest of its batch is filled up, and what fills it is computed for nothing. So pairs are
sorted into buckets by the lengths of both of their sentences, and the buckets, one after the other, are cut into batches that
hold no more tokens than a budget. The cut is the same in every epoch; which pairs of a bucket come together, and the order of
the batches, are new each time.

Shapes: N pairs, B pairs of a batch, S source tokens, T target tokens.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlzoo.data.order import EpochPosition, OrderedBatches
from dlzoo.data.sentences import BEGIN, PADDING
from dlzoo.data.streams import generator
from dlzoo.errors import ConfigError

__all__ = ["BucketOrder", "PairBatch", "PairBatches", "Rows"]

FEWEST = 8  # pairs of the last batch, where the budget and the one before it let there be as many


class PairBatch(NamedTuple):
    """This rank's share of a batch; S and T are those of all ranks.

    Args:
        source: (B, S), ended and filled up.
        target: (B, T + 1), begun, ended and filled up.
        predicted: (), how many target tokens a rank has to predict, the mean over all ranks; a whole number for one.
        index: (B,), which pairs of the data these are.
    """

    source: Tensor
    target: Tensor
    predicted: Tensor
    index: Tensor


class Rows:
    """Sentences of unequal length, one behind the other in one tensor.

    Args:
        rows: the tokens of each.
        device: where they are kept.
    """

    def __init__(self, rows: Sequence[np.ndarray], device: torch.device | str = "cpu") -> None:
        self.lengths = torch.tensor([len(row) for row in rows])
        self._begins = (self.lengths.cumsum(0) - self.lengths).to(device)
        self._lengths = self.lengths.to(device)
        self._tokens = torch.from_numpy(np.concatenate(rows)).int().to(device)

    def take(self, index: Tensor, among: Tensor | None = None) -> Tensor:
        """Rows `index`, (B,), filled up to the longest of them, or of rows `among`, (N,): (B, S), int64."""
        at = torch.arange(int(self.lengths[(index if among is None else among).cpu()].max()), device=index.device)
        inside = at < self._lengths[index, None]
        return self._tokens[(self._begins[index, None] + at) * inside].long().masked_fill(~inside, PADDING)


class BucketOrder(EpochPosition):
    """Which pairs make up which batch, and each rank's share of it. A pure function of (seed, epoch, index).

    Args:
        lengths: (N, 2), tokens of source and target.
        batch_tokens: the most tokens of a batch, of both languages, with what fills up, over all ranks.
        batch_size: the most pairs of a batch; None sets no limit besides.
        shuffle: bucket-mates and batches in a new order for each epoch; otherwise from the shortest to the longest.
        bucket: lengths that differ by less than this share a bucket.
        seed: the run's seed.
        rank: which share this process takes.
        world_size: processes that share each batch.

    Raises:
        ValueError: bucket or batch_size is below 1, or a rank that there is not.
        ConfigError: a pair is longer than a batch may be, or a batch has not a pair for each rank.
    """

    def __init__(
        self,
        lengths: Tensor,
        *,
        batch_tokens: int,
        batch_size: int | None = None,
        shuffle: bool,
        bucket: int = 2,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("bucket", bucket), ("batch_size", 1 if batch_size is None else batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}")
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        source, target = ((lengths + bucket - 1) // bucket).unbind(1)
        # by the target's length; within it by the source's, up and down in turns, so that no two neighbours are far apart
        most = int(source.max()) + 1
        self._keys = target * most + torch.where(target % 2 == 0, source, most - 1 - source)
        places = self._keys.argsort(stable=True)
        self._sizes = _cut((torch.stack([source, target], 1) * bucket)[places], batch_tokens, batch_size or len(lengths))
        if (least := min(self._sizes)) < world_size:
            raise ConfigError(
                f"the smallest batch has {least} pair(s), which {world_size} devices cannot share",
                where="data.batch_tokens",
                fix=f"data.batch_tokens={batch_tokens * -(-2 * world_size // least)}",
            )
        self._made: tuple[int, list[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    def batches(self) -> list[Tensor]:
        """The pairs of each batch of this epoch, over all ranks."""
        if self._made is None or self._made[0] != self.epoch:
            if self.shuffle:
                random = generator("pairs", self.seed, self.epoch)
                mixed = torch.randperm(len(self._keys), generator=random)
                batches = mixed[self._keys[mixed].argsort(stable=True)].split(self._sizes)
                batches = [batches[at] for at in torch.randperm(len(batches), generator=random)]
            else:
                batches = list(self._keys.argsort(stable=True).split(self._sizes))
            self._made = self.epoch, batches
        return self._made[1]

    def share(self, batch: int) -> Tensor:
        """This rank's pairs of a batch, every W-th: the ranks' lengths are about the same too."""
        return self.batches()[batch][self.rank :: self.world_size]


class PairBatches(OrderedBatches):
    """Iterates over pairs of sentences; takes the place of a DataLoader. No pair of an epoch is left out.

    Iterating again without `set_epoch` is the next epoch.

    Args:
        source: the sentences to read, each ended.
        target: their translations, each ended.
        batch_tokens, batch_size, shuffle, bucket, seed, rank, world_size: as `BucketOrder`.
        device: where the sentences are kept and the batches come from.

    Raises:
        ValueError: not as many sources as targets, or none.
        ConfigError: as `BucketOrder`.
    """

    def __init__(
        self,
        source: Sequence[np.ndarray],
        target: Sequence[np.ndarray],
        *,
        batch_tokens: int,
        batch_size: int | None = None,
        shuffle: bool = False,
        bucket: int = 2,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(source) != len(target) or not len(source):
            raise ValueError(f"a source for each target is needed, got {len(source)} and {len(target)}")
        self.device = torch.device(device)
        self.source, self.target = Rows(source, device), Rows([np.append(BEGIN, row) for row in target], device)
        self.predicted = self.target.lengths - 1  # (N,): all but the first token
        self.sampler = BucketOrder(
            torch.stack([self.source.lengths, self.target.lengths], 1),
            batch_tokens=batch_tokens,
            batch_size=batch_size,
            shuffle=shuffle,
            bucket=bucket,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def __iter__(self) -> Iterator[PairBatch]:
        order = self.sampler
        for batch in range(order.start(), len(order)):
            every, index = order.batches()[batch], order.share(batch).to(self.device)
            predicted = (self.predicted[every].sum() / order.world_size).to(self.device)
            order.gave(batch)
            # as long on every rank: a recurrent network has then as many steps on each, for which ZeRO-3 gathers its weights;
            # the step takes as long as that of the longest share anyway
            yield PairBatch(self.source.take(index, every), self.target.take(index, every), predicted, index)


def _cut(lengths: Tensor, batch_tokens: int, batch_size: int) -> list[int]:
    """How many of these pairs, in their order, each batch takes: as many as the budget lets it, filled up to the longest."""
    sizes, count, most = [], 0, (0, 0)
    for source, target in lengths.tolist():
        if source + target > batch_tokens:
            raise ConfigError(
                f"a pair has {source + target} tokens, and a batch may have {batch_tokens}",
                where="data.batch_tokens",
                fix=f"data.batch_tokens={FEWEST * (source + target)}",
            )
        longest = max(most[0], source), max(most[1], target)
        if count == batch_size or (count + 1) * sum(longest) > batch_tokens:
            sizes.append(count)
            count, longest = 0, (source, target)
        count, most = count + 1, longest
    sizes.append(count)
    if len(sizes) > 1 and sizes[-1] < FEWEST:  # a step for a handful of pairs would be a noisy one: the last two share theirs
        both = sizes.pop() + sizes.pop()
        source, target = lengths[-both:].max(0).values.tolist()
        last = max(count, min(both // 2, batch_tokens // (source + target)))
        sizes += [both - last, last]
    return sizes
