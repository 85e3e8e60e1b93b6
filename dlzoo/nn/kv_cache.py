"""What a language model keeps while it writes: the keys and values of all it has read, so that a new token costs one step.

The room is taken once, when the first token comes, and filled from the left. Prompts of unequal length go through the network
together, padded on the right: `keep` then says how long each row is, and what its padding left is overwritten by what
follows. A token's place is thus the same as if its row were alone, and the answer too.

Source: the idea is older than its name; Pope et al. 2022, https://arxiv.org/abs/2211.05102, section 2, says what it costs.
Differs from it: nothing.

Shapes: B rows, T new tokens, S tokens so far with the new ones, g heads, d width of a head.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["KVCache"]


class KVCache:
    """Room for the keys and values of a number of tokens, in every layer. For one generation; a new one needs a new cache.

    A network calls `begin` once for the tokens it reads, then `append` in each layer, in order.

    Args:
        length: tokens that there is room for, prompt and answer together.

    Raises:
        ValueError: length is below 1; and in `begin`, more tokens than there is room for.
    """

    def __init__(self, length: int) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.length = length
        self.used = 0  # tokens of the longest row
        self.rows: Tensor | None = None  # tokens of each row, (B,), where they differ
        self.keys: list[Tensor] = []  # of each layer (B, g, length, d)
        self.values: list[Tensor] = []
        self._start = 0
        self._places: Tensor | None = None

    def begin(self, count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Makes place for `count` tokens more.

        Returns:
            their positions, (T,) or where rows differ (B, T); and what they may see: None for all before them, or where rows
            differ a mask (B, 1, T, S).
        """
        if self.used + count > self.length:
            raise ValueError(f"the cache has room for {self.length} tokens, got {self.used} + {count}")
        self._start, self.used = self.used, self.used + count
        new = torch.arange(count, device=device)
        if self.rows is None:
            self._places = None
            return self._start + new, None
        self._places = self.rows[:, None] + new
        self.rows = self.rows + count
        return self._places, torch.arange(self.used, device=device) <= self._places[:, None, :, None]

    def layer(self, index: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`append` of one layer, as attention takes it."""
        return lambda key, value: self.append(index, key, value)

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the new keys and values of a layer, (B, g, T, d), and gives all so far, (B, g, S, d)."""
        if layer == len(self.keys):  # zeros: what no row may see is weighed by 0, which an infinity would survive
            shape = (*key.shape[:2], self.length, key.shape[3])
            self.keys.append(key.new_zeros(shape))
            self.values.append(value.new_zeros(shape))
        for room, new in ((self.keys[layer], key), (self.values[layer], value)):
            if self._places is None:
                room.narrow(2, self._start, self.used - self._start).copy_(new)
            else:
                room[torch.arange(len(new), device=new.device)[:, None], :, self._places] = new.transpose(1, 2)
        return self.keys[layer].narrow(2, 0, self.used), self.values[layer].narrow(2, 0, self.used)

    def keep(self, lengths: Tensor) -> None:
        """Forgets what each row holds beyond its own length: the padding of a prompt, or tokens taken back.

        Args:
            lengths: tokens to keep of each row, (B,), whole numbers.

        Raises:
            ValueError: a length below 1, or above what is there.
        """
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < 1 or longest > self.used:
            raise ValueError(f"lengths must be from 1 to {self.used}, got {shortest} to {longest}")
        self.used, self.rows = longest, None if shortest == longest else lengths

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows alone, in this order: beams that survive, prompts that are not answered yet."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]
        if self.rows is not None:
            self.keep(self.rows[rows])
