"""Batches of windows of a series that lies in memory: a stretch of the past, and what came after it.

Shapes: N rows of the series, F features, K targets, T rows of the past, H rows to come, W windows, B batch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from dlzoo.data.order import EpochOrder, OrderedBatches

__all__ = ["WindowBatches"]


class WindowBatches(OrderedBatches):
    """Iterates over (x, y, at) batches of windows; takes the place of a DataLoader.

    Which windows a batch holds is a pure function of (seed, epoch, index). Iterating again without `set_epoch` is the next
    epoch.

    Args:
        features: what the network is shown of each row.
        targets: what it is asked of each; NaN where nothing is known.
        starts: the first row to come, of each window.
        history: T.
        horizon: H.
        batch_size: windows a batch, over all ranks together.
        shuffle: a new order each epoch; otherwise that of `starts`.
        seed: the run's seed.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        device: where the series is kept, and the batches come from.
        rank: which share of each batch this process takes.
        world_size: processes that share each batch.

    Shape:
        features (N, F), targets (N, K), starts (W,); yields x (B, T, F), y (B, H, K), float32, and at (B,), the starts.

    Raises:
        ValueError: features and targets are of different lengths, or a window reaches past an end.
        ConfigError: the batch size does not go with the number of ranks.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        starts: Tensor,
        *,
        history: int,
        horizon: int,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(features) != len(targets):
            raise ValueError(f"features and targets must be equally many, got {len(features)} and {len(targets)}")
        if len(starts) and (starts.min() < history or starts.max() > len(features) - horizon):
            raise ValueError(f"windows must lie in the {len(features)} rows, got starts {starts.min()} to {starts.max()}")
        self.sampler = EpochOrder(
            len(starts),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        self.batch_size, self.device = batch_size, torch.device(device)
        self.features, self.targets, self.starts = (part.to(self.device) for part in (features, targets, starts))
        self.before = torch.arange(-history, 0, device=self.device)
        self.after = torch.arange(horizon, device=self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order = self.sampler
        first = order.start()
        starts = self.starts[order.permutation().to(self.device)]
        for batch in range(first, len(order)):
            low, high = order.share(batch)
            at = starts[low:high]
            order.gave(batch)
            yield self.features[at[:, None] + self.before], self.targets[at[:, None] + self.after], at
