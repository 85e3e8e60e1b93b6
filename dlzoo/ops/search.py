"""Finding a likely sequence with a model that only says how likely each next token is.

Greedy search takes the likeliest token each time. It cannot take a step back: a good second word may need a first one that was
not the best. Beam search goes on with the K likeliest beginnings, so greedy search is its case of K = 1, and trying everything
is its case of a K that nothing falls out of. Every token makes a sequence less likely, so sequences of different lengths are
compared after a division that makes up for it.

Source: Wu et al. 2016, Google's Neural Machine Translation System, https://arxiv.org/abs/1609.08144, section 7, equation 14:
    the score is log P / ((5 + length) / 6)^alpha, where the length counts the end token.
Differs from it: no coverage penalty, and no pruning of what is much worse than the best; a search stops when K sequences have
    ended.

Shapes: B sequences, K beams, V tokens known, T tokens at most. All tensors of a state have the batch as their first dimension.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Found", "Step", "Writer", "beam_search", "greedy_search", "length_penalty", "select", "write"]

# the last tokens, (N,), and the state -> the next token's logits, (N, V), and the new state
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


class Found(NamedTuple):
    """The sequences that a search found, the best first.

    Args:
        tokens: (B, K, T), without the first one, filled up with end tokens.
        lengths: (B, K), tokens up to the first end token and with it; T where it did not end. 0: there is no K-th sequence.
        scores: (B, K), log P over the length penalty; -inf where there is none.
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor


class Writer(Protocol):
    """A network that reads a source and writes token by token: what a translator has to be."""

    def encode(self, source: Tensor) -> Any:
        """Source (B, S) -> the state before the first token, tensors of which each has the batch first."""

    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As `Step`."""


def length_penalty(length: int, alpha: float) -> float:
    """What log P is divided by: 1 for alpha = 0, and about in proportion to the length for alpha = 1."""
    return ((5 + length) / 6) ** alpha


def select(state: Any, index: Tensor) -> Any:
    """Rows `index` of a state: a tensor, or tuples of them, named or not, in any depth."""
    if isinstance(state, Tensor):
        return state.index_select(0, index)
    rows = [select(part, index) for part in state]
    return type(state)(*rows) if hasattr(state, "_fields") else type(state)(rows)


@torch.no_grad()
def greedy_search(step: Step, state: Any, first: Tensor, end: int, max_length: int) -> Found:
    """The likeliest token each time, until every sequence has ended.

    Args:
        step: last tokens and state -> logits of the next token and new state.
        state: before the first token.
        first: the token that each sequence begins with.
        end: the token that ends one.
        max_length: T; a sequence that has not ended by then stays as it is.

    Shape:
        first (B) -> one sequence each, K = 1; its score is log P.

    Raises:
        ValueError: max_length is below 1.
    """
    _positive({"max_length": max_length})
    tokens = first.new_full((len(first), max_length), end)
    lengths, done = torch.zeros_like(first), torch.zeros_like(first, dtype=torch.bool)
    total, last = 0.0, first
    for at in range(max_length):
        logits, state = step(last, state)
        scores, last = _log_probabilities(logits).max(1)
        total = total + scores.masked_fill(done, 0)
        last = last.masked_fill(done, end)
        tokens[:, at], lengths = last, lengths + ~done
        done = done | last.eq(end)
        if done.all():
            break
    return Found(tokens[:, None], lengths[:, None], total[:, None])


@torch.no_grad()
def beam_search(
    step: Step,
    state: Any,
    first: Tensor,
    end: int,
    max_length: int,
    beams: int = 4,
    alpha: float = 0.6,
    reorder: Callable[[Any, Tensor], Any] = select,
) -> Found:
    """The likeliest K beginnings go on, until K sequences have ended.

    Args:
        step: last tokens and state -> logits of the next token and new state.
        state: before the first token; B rows. `step` is then given B * K.
        first: the token that each sequence begins with.
        end: the token that ends one.
        max_length: T; the beginnings that have not ended by then compete as they are.
        beams: K. Also the number of sequences returned.
        alpha: of the length penalty. 0: none; more prefers longer sequences.
        reorder: state and (N,) rows -> the state of those rows, each as often as it is named.

    Shape:
        first (B) -> K sequences each, the best first.

    Raises:
        ValueError: beams or max_length is below 1.
    """
    _positive({"beams": beams, "max_length": max_length})
    rows = torch.arange(len(first), device=first.device)
    state = reorder(state, rows.repeat_interleave(beams))
    last = first.repeat_interleave(beams)
    paths = first.new_full((len(first), beams, max_length), end)
    alive = torch.full((len(first), beams), -torch.inf, device=first.device)
    ended = Found(paths, torch.zeros_like(paths[..., 0]), alive)
    alive = alive.index_fill(1, rows.new_zeros(1), 0.0)  # the beams are the same as yet: only the first counts
    done = torch.zeros_like(first, dtype=torch.bool)
    for length in range(1, max_length + 1):
        logits, state = step(last, state)
        scores = alive[..., None] + _log_probabilities(logits).unflatten(0, (-1, beams))  # (B, K, V)
        # each beginning can end in one way: of the 2 K best, at least K go on
        scores, index = scores.flatten(1).topk(min(2 * beams, scores[0].numel()))
        parents, tokens = index // logits.shape[1], index % logits.shape[1]
        paths = _pick(paths, parents)
        paths[..., length - 1] = tokens
        ends = tokens.eq(end)
        # an end counts if it is among the K best, so that one beam is greedy search
        complete = scores.masked_fill(~ends | done[:, None], -torch.inf)[:, :beams] / length_penalty(length, alpha)
        ended = _best(ended, paths[:, :beams], complete, length)
        alive, kept = scores.masked_fill(ends, -torch.inf).topk(beams)
        paths, tokens, parents = _pick(paths, kept), tokens.gather(1, kept), parents.gather(1, kept)
        done = done | ended.scores[:, -1].isfinite() | alive[:, 0].isneginf()
        if length == max_length or done.all():
            break
        last = tokens.flatten()
        state = reorder(state, (rows[:, None] * beams + parents).flatten())
    cut = alive.masked_fill(done[:, None], -torch.inf) / length_penalty(max_length, alpha)
    found = _best(ended, paths, cut, max_length)
    none = found.scores.isneginf()
    return Found(found.tokens.masked_fill(none[..., None], end), found.lengths.masked_fill(none, 0), found.scores)


def write(
    net: Writer, source: Tensor, begin: int, end: int, max_length: int, beams: int = 1, alpha: float = 0.6
) -> tuple[Tensor, Tensor]:
    """The best sequence that a network finds for each source.

    Args:
        net: reads and writes.
        source: what it reads.
        begin: the token that each sequence begins with.
        end: the token that ends one.
        max_length: T.
        beams: K; 1 is greedy search.
        alpha: of the length penalty.

    Shape:
        source (B, S) -> tokens (B, T), filled up with end tokens, and scores (B).
    """
    with torch.no_grad():
        state, first = net.encode(source), source.new_full((len(source),), begin)
    if beams == 1:
        found = greedy_search(net.step, state, first, end, max_length)
    else:
        found = beam_search(net.step, state, first, end, max_length, beams, alpha)
    return found.tokens[:, 0], found.scores[:, 0]


def _best(found: Found, tokens: Tensor, scores: Tensor, length: int) -> Found:
    """The K best of those found, (B, K), and some more of one length."""
    beams = found.scores.shape[1]
    lengths = torch.cat([found.lengths, torch.full_like(tokens[..., 0], length)], 1)
    scores, kept = torch.cat([found.scores, scores], 1).topk(beams)
    return Found(_pick(torch.cat([found.tokens, tokens], 1), kept), lengths.gather(1, kept), scores)


def _pick(paths: Tensor, index: Tensor) -> Tensor:
    """Paths `index`, (B, N), of each row of (B, K, T): (B, N, T)."""
    return paths.gather(1, index[..., None].expand(-1, -1, paths.shape[2]))


def _log_probabilities(logits: Tensor) -> Tensor:
    """In float32 at least: hundreds of them are added up."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _positive(numbers: dict[str, int]) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
