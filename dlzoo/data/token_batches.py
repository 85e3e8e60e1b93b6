"""Batches of windows of one long sequence of tokens, in memory or in a mapped file.

A window of T tokens is the input, and the same window one token later is what has to be predicted. In training the sequence
is cut into windows that do not overlap, from an offset that changes with every pass, and they come in a new order: within a
pass each token is predicted at most once, and over the passes at every place of a window. In evaluation the windows begin at
the first token, and each token after it is predicted exactly once.

Shapes: N tokens, T tokens of a window, B batch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dlzoo.data.order import EpochOrder, OrderedBatches
from dlzoo.data.streams import generator

__all__ = ["NOTHING", "TokenBatches", "compact"]

NOTHING = -100  # what stands in y where nothing is to be predicted: torch's own ignore_index


class TokenBatches(OrderedBatches):
    """Iterates over (x, y) batches of windows; takes the place of a DataLoader.

    Which windows a batch holds is a pure function of (seed, epoch, index). Iterating again without `set_epoch` is the next
    epoch.

    Args:
        tokens: (N,), integers: a tensor, or an array such as a mapped file.
        context: tokens of a window.
        batch_size: windows a batch, over all ranks together.
        shuffle: windows in a new order, from a new offset; otherwise each token once, in order.
        epoch_size: windows of an epoch; the next epoch goes on in the same pass over the tokens. None is a whole pass.
        seed: the run's seed.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        device: where the batches come from; tokens that are a tensor are kept there.
        rank: which share of each batch this process takes.
        world_size: processes that share each batch.

    Shape:
        yields x (B, T) and y (B, T), int64. The last window of an evaluation may reach past the end: y is NOTHING there.

    Raises:
        ValueError: tokens have another shape, context is not positive, or there are too few tokens for one window.
        ConfigError: the batch size does not go with the number of ranks.
    """

    def __init__(
        self,
        tokens: Tensor | np.ndarray,
        *,
        context: int,
        batch_size: int,
        shuffle: bool = False,
        epoch_size: int | None = None,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if tokens.ndim != 1:
            raise ValueError(f"tokens must be of shape (N,), got {tuple(tokens.shape)}")
        if context < 1:
            raise ValueError(f"context must be at least 1, got {context}")
        count = len(tokens)
        least = context + 1 if shuffle else 2
        if count < least:
            raise ValueError(f"windows of {context} tokens need at least {least} tokens, got {count}")
        self.device, self.context, self.batch_size, self.shuffle = torch.device(device), context, batch_size, shuffle
        self.tokens = tokens.to(self.device) if isinstance(tokens, Tensor) else tokens
        # a training pass leaves room for its offset: the number of windows is the same wherever it begins
        self.windows = max(1, (count - context) // context) if shuffle else -(-(count - 1) // context)
        self._offsets = count - self.windows * context
        self.sampler = EpochOrder(
            epoch_size if shuffle and epoch_size else self.windows,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.sampler
        first = order.start()
        starts = self.starts(order.epoch)
        if isinstance(self.tokens, Tensor):
            starts = starts.to(self.device)
        for batch in range(first, len(order)):
            low, high = order.share(batch)
            x, y = self._take(starts[low:high])
            order.gave(batch)
            yield x, y

    def starts(self, epoch: int) -> Tensor:
        """Where the windows of an epoch begin, in their order: (windows of an epoch,)."""
        size = self.sampler.size
        if not self.shuffle:
            return torch.arange(size) * self.context
        found, wanted = [], size
        # epochs of another length than a pass share passes
        number, at = divmod(epoch * size, self.windows)
        while wanted:
            random = generator("windows", self.sampler.seed, number)
            offset = int(torch.randint(self._offsets, (), generator=random))
            some = torch.randperm(self.windows, generator=random)[at : at + wanted]
            found.append(offset + some * self.context)
            number, at, wanted = number + 1, 0, wanted - len(some)
        return torch.cat(found)

    def _take(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The windows that begin at `starts`, and the same one token later: (B, T), (B, T)."""
        index = starts[:, None] + torch.arange(self.context + 1, device=starts.device)
        last = len(self.tokens) - 1
        inside = index.clamp(max=last)
        if isinstance(self.tokens, Tensor):
            taken = self.tokens[inside].long()
        else:
            taken = torch.from_numpy(self.tokens[inside.numpy()].astype(np.int64)).to(self.device)
        x, y = taken[:, :-1].contiguous(), taken[:, 1:].contiguous()
        return x, y if self.shuffle else y.masked_fill((index[:, 1:] > last).to(y.device), NOTHING)


def compact(tokens: np.ndarray, vocab_size: int) -> Tensor:
    """Tokens as a tensor of the smallest type that holds the vocabulary: a corpus in memory takes one or two bytes a token."""
    small = (torch.uint8, 256), (torch.int16, 1 << 15), (torch.int32, 1 << 31)
    return torch.from_numpy(tokens).to(next(kind for kind, size in small if vocab_size <= size))
