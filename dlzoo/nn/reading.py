"""Three ways in which a network reads a text that grows by a token at a time; what it answers is the same.

With a cache of keys and values (GPT, Llama) or with a state (recurrent networks), what was read is kept, and a new token costs
one step. A network that keeps nothing reads its whole window again each time: right for any network that never looks ahead, and
what the other two are tested against.

Source: `dlzoo.ops.generation`, which says when a window begins anew.
Differs from it: nothing.

Shapes: B rows, T tokens of the longest window, V vocabulary.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from dlzoo.nn.kv_cache import KVCache
from dlzoo.ops.generation import Reader

__all__ = ["CacheReader", "StateReader", "WindowReader", "reader"]


def reader(net: nn.Module, context: int | None = None) -> Reader:
    """The quickest way in which a network can read.

    Args:
        net: a language model, (B, T) -> (B, T, V).
        context: tokens that it may see at once, where the network itself does not say.
    """
    if hasattr(net, "with_state"):
        return StateReader(net)
    if "cache" in inspect.signature(net.forward).parameters:
        return CacheReader(net)
    return WindowReader(net, context)


class CacheReader:
    """Keeps keys and values.

    Args:
        net: has `features(tokens, cache)`, `logits(features)` and `context`.
    """

    def __init__(self, net: Any) -> None:
        self.net, self.context = net, net.context
        self.cache: KVCache | None = None

    def begin(self, windows: list[list[int]], room: int) -> Tensor:
        tokens, lengths = _padded(windows, self.net)
        self.cache = KVCache(min(tokens.shape[1] + room, self.context))
        features = self.net.features(tokens, self.cache)
        self.cache.keep(lengths)
        return self.net.logits(_last(features, lengths))

    def go_on(self, tokens: Tensor) -> Tensor:
        return self.net.logits(self.net.features(tokens[:, None], self.cache)[:, -1])

    def select(self, rows: Tensor) -> None:
        if self.cache is not None:
            self.cache.select(rows)


class StateReader:
    """Keeps a state, in which all that was read has left its mark: there is no window, only forgetting.

    Args:
        net: has `with_state(tokens, state, lengths)`.
    """

    context = None

    def __init__(self, net: Any) -> None:
        self.net = net
        self.state: tuple[Tensor, ...] = ()

    def begin(self, windows: list[list[int]], room: int) -> Tensor:
        tokens, lengths = _padded(windows, self.net)
        equal = bool((lengths == tokens.shape[1]).all())
        logits, self.state = self.net.with_state(tokens, None, None if equal else lengths)
        return _last(logits, lengths)

    def go_on(self, tokens: Tensor) -> Tensor:
        logits, self.state = self.net.with_state(tokens[:, None], self.state)
        return logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.state = tuple(part[:, rows] for part in self.state)


class WindowReader:
    """Keeps nothing but the tokens.

    Args:
        net: (B, T) -> (B, T, V); at no place does it look ahead, so that what a row is filled up with does not count.
        context: tokens that it can see at once; None for the network's own, if it has one.
    """

    def __init__(self, net: Any, context: int | None = None) -> None:
        self.net = net
        self.context = getattr(net, "context", None) if context is None else context
        self.windows: list[list[int]] = []

    def begin(self, windows: list[list[int]], room: int) -> Tensor:
        self.windows = [list(window) for window in windows]
        return self._read()

    def go_on(self, tokens: Tensor) -> Tensor:
        for window, token in zip(self.windows, tokens.tolist(), strict=True):
            window.append(token)
        return self._read()

    def select(self, rows: Tensor) -> None:
        self.windows = [self.windows[row] for row in rows.tolist()]

    def _read(self) -> Tensor:
        tokens, lengths = _padded(self.windows, self.net)
        return _last(self.net(tokens), lengths)


def _padded(windows: list[list[int]], net: nn.Module) -> tuple[Tensor, Tensor]:
    """Windows filled up on the right, (B, T), and how long each is, (B,); where the network is."""
    device = next(net.parameters()).device
    longest = max(map(len, windows))
    tokens = torch.tensor([window + [0] * (longest - len(window)) for window in windows], device=device)
    return tokens, torch.tensor([len(window) for window in windows], device=device)


def _last(values: Tensor, lengths: Tensor) -> Tensor:
    """What stands at the last token of each row: (B, T, ...) -> (B, ...)."""
    return values[torch.arange(len(values), device=values.device), lengths - 1]
