"""A recurrent network reads a sentence, another writes its translation, and for each word it looks back at what was read.

Before attention, all that was read had to pass through one vector, and long sentences did not fit. Here the encoder keeps one
vector for each source token, made from both directions. The decoder compares its state with each of them, a softmax turns the
scores into weights, and the weighted sum of the vectors is what it reads before it writes the next word. Where it looked is fed
into its next step (input feeding), so that it can know what is translated already.

Source: Bahdanau, Cho, Bengio 2014, Neural Machine Translation by Jointly Learning to Align and Translate,
    https://arxiv.org/abs/1409.0473, section 3 and appendix A: the encoder in both directions, the additive score; Luong, Pham,
    Manning 2015, Effective Approaches to Attention-based Neural Machine Translation, https://arxiv.org/abs/1508.04025,
    sections 3.1 and 3.3: the dot and general scores, the order of a step, input feeding.
Differs from it: the additive score too sits in Luong's order: first a step of the network, then the look, then tanh of both,
    where Bahdanau looks first and ends in a maxout. The first state of each layer is made from both ends of what was read.
    Dropout is on the embeddings, between layers and before the head.

Shapes: B batch, S source tokens, T target tokens, V target vocabulary, E embedding, D width, L layers, K tensors of a cell's
    state (GRU 1, LSTM 2).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AdditiveScore",
    "BothWays",
    "DotScore",
    "Encoder",
    "GeneralScore",
    "Seq2Seq",
    "Seq2SeqSize",
    "Seq2SeqState",
    "seq2seq_additive",
    "seq2seq_dot",
    "seq2seq_general",
]


@dataclass(frozen=True)
class Seq2SeqSize:
    """How large a network is.

    Args:
        embedding: E, of both languages.
        width: D, features of the decoder's state and of the encoder's vectors, half of them from each direction.
        layers: L, of the encoder and of the decoder.
    """

    embedding: int = 256
    width: int = 512
    layers: int = 1


class Seq2SeqState(NamedTuple):
    """All that a decoder knows between two tokens. The batch comes first everywhere.

    Args:
        memory: (B, S, D), the encoder's vectors, 0 where there is padding.
        keys: (B, S, D), what the score compares the state with.
        mask: (B, S), True where there is a token.
        hidden: (B, L, K, D), of the recurrent layers.
        feed: (B, D), the last answer, read by the next step.
        weights: (B, S), where the last step looked.
    """

    memory: Tensor
    keys: Tensor
    mask: Tensor
    hidden: Tensor
    feed: Tensor
    weights: Tensor


class AdditiveScore(nn.Module):
    """Bahdanau's: a small network with one hidden layer, v tanh(W state + U memory).

    Args:
        width: D, and that of the hidden layer.

    Shape:
        `keys`: (B, S, D) -> (B, S, D), once a sentence. (B, D) and the keys -> (B, S).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width)
        self.energy = nn.Linear(width, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        return self.key(memory)

    def forward(self, state: Tensor, keys: Tensor) -> Tensor:
        return self.energy(torch.tanh(self.query(state)[:, None] + keys))[..., 0]


class DotScore(nn.Module):
    """Luong's simplest: state and memory in one space, compared by their product.

    Shape:
        `keys`: (B, S, D) -> (B, S, D), the memory itself. (B, D) and the keys -> (B, S).
    """

    def keys(self, memory: Tensor) -> Tensor:
        return memory

    def forward(self, state: Tensor, keys: Tensor) -> Tensor:
        return (keys @ state[..., None])[..., 0]


class GeneralScore(DotScore):
    """Luong's general one: the product after a learned linear map, state W memory.

    Args:
        width: D.

    Shape:
        `keys`: (B, S, D) -> (B, S, D), once a sentence. (B, D) and the keys -> (B, S).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        return self.key(memory)


class BothWays(nn.Module):
    """A recurrent layer from the left and one from the right, each with half of the features.

    A bidirectional layer of torch would begin on the right with the padding. Here each row is mirrored within its own length,
    which is also exported, as packing is not.

    Args:
        cell: "gru" or "lstm".
        inputs: features of a token.
        width: D, even.

    Shape:
        (B, S, inputs) and the places of the mirrored tokens (B, S) -> (B, S, D).
    """

    def __init__(self, cell: Literal["gru", "lstm"], inputs: int, width: int) -> None:
        super().__init__()
        kind = nn.GRU if cell == "gru" else nn.LSTM
        self.from_left = kind(inputs, width // 2, batch_first=True)
        self.from_right = kind(inputs, width // 2, batch_first=True)

    def forward(self, x: Tensor, mirror: Tensor) -> Tensor:
        left = self.from_left(x)[0]
        right = self.from_right(_places(x, mirror))[0]
        return torch.cat([left, _places(right, mirror)], 2)


class Encoder(nn.Module):
    """Embeddings and layers in both directions.

    Args:
        vocab_size: of the source.
        cell: "gru" or "lstm".
        size: E, D and L.
        dropout: of the embeddings and between layers.

    Shape:
        tokens (B, S) and mask (B, S) -> memory (B, S, D), 0 where there is padding, and (B, D), where each direction ended.
    """

    def __init__(self, vocab_size: int, cell: Literal["gru", "lstm"], size: Seq2SeqSize, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size.embedding)
        inputs = [size.embedding] + [size.width] * (size.layers - 1)
        self.layers = nn.ModuleList(BothWays(cell, features, size.width) for features in inputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        lengths = mask.sum(1, keepdim=True)
        at = torch.arange(source.shape[1], device=source.device).expand_as(source)
        mirror = torch.where(at < lengths, lengths - 1 - at, at)  # padding stays where it is
        x = self.embedding(source)
        for layer in self.layers:
            x = layer(self.dropout(x), mirror)
        half = x.shape[2] // 2
        last = _places(x, (lengths - 1).clamp(min=0))[:, 0, :half]
        return x.masked_fill(~mask[..., None], 0), torch.cat([last, x[:, 0, half:]], 1)


class Seq2Seq(nn.Module):
    """Encoder, attention, decoder, head.

    Args:
        source_vocab_size: tokens known of the source language.
        target_vocab_size: V.
        score: how the decoder's state is compared with the encoder's vectors.
        cell: of both recurrent networks.
        size: E, D and L.
        dropout: share of the features that training drops.
        padding: the token that fills up source rows, at their ends.

    Shape:
        source (B, S) and target (B, T), which begins with the first token -> (B, T, V), logits of the token after each.
        A mask (B, S), True where there is a token, may say where the source ends, instead of `padding`.

    Raises:
        ValueError: a number is below 1, the width is odd, the score or cell is unknown, dropout is not in [0, 1).
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        score: Literal["additive", "dot", "general"] = "additive",
        cell: Literal["gru", "lstm"] = "gru",
        size: Seq2SeqSize = Seq2SeqSize(),
        dropout: float = 0.3,
        padding: int = 0,
    ) -> None:
        super().__init__()
        numbers = {"source_vocab_size": source_vocab_size, "target_vocab_size": target_vocab_size}
        for name, value in (numbers | {"embedding": size.embedding, "layers": size.layers}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if size.width < 2 or size.width % 2:
            raise ValueError(f"width must be even, half for each direction, got {size.width}")
        if score not in ("additive", "dot", "general"):
            raise ValueError(f"score must be 'additive', 'dot' or 'general', got {score!r}")
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell must be 'gru' or 'lstm', got {cell!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        width, self.padding = size.width, padding
        self.tensors = 1 if cell == "gru" else 2
        self.encoder = Encoder(source_vocab_size, cell, size, dropout)
        self.bridge = nn.Linear(width, size.layers * self.tensors * width)
        self.embedding = nn.Embedding(target_vocab_size, size.embedding)
        kind = nn.GRUCell if cell == "gru" else nn.LSTMCell
        inputs = [size.embedding + width] + [width] * (size.layers - 1)
        self.cells = nn.ModuleList(kind(features, width) for features in inputs)
        self.score = DotScore() if score == "dot" else AdditiveScore(width) if score == "additive" else GeneralScore(width)
        self.combine = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, target_vocab_size)
        self.dropout = nn.Dropout(dropout)
        for embedding in (self.encoder.embedding, self.embedding):
            nn.init.uniform_(embedding.weight, -0.1, 0.1)  # Luong's section 4.1; all else as torch does it

    def encode(self, source: Tensor, mask: Tensor | None = None) -> Seq2SeqState:
        """Reads the source, (B, S): the state before the first target token."""
        if mask is None:
            mask = source.ne(self.padding)
        memory, ends = self.encoder(source, mask)
        hidden = torch.tanh(self.bridge(ends)).unflatten(1, (len(self.cells), self.tensors, -1))
        feed = torch.zeros_like(hidden[:, 0, 0])
        return Seq2SeqState(memory, self.score.keys(memory), mask, hidden, feed, torch.zeros_like(memory[..., 0]))

    def step(self, token: Tensor, state: Seq2SeqState) -> tuple[Tensor, Seq2SeqState]:
        """The last token, (B,) -> logits of the next one, (B, V), and the state after it."""
        state = self._advance(self.dropout(self.embedding(token)), state)
        return self.head(self.dropout(state.feed)), state

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        feeds, _ = self._read_along(source, target, mask)
        return self.head(self.dropout(feeds))

    def align(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where the decoder looks while it writes the token after each of `target`: (B, T, S), rows that sum to 1."""
        return self._read_along(source, target, mask)[1]

    def _read_along(self, source: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Answers, (B, T, D), and weights, (B, T, S), with each true token given instead of the one that was written."""
        state = self.encode(source, mask)
        feeds, weights = [], []
        for word in self.dropout(self.embedding(target)).unbind(1):
            state = self._advance(word, state)
            feeds.append(state.feed)
            weights.append(state.weights)
        return torch.stack(feeds, 1), torch.stack(weights, 1)

    def _advance(self, word: Tensor, state: Seq2SeqState) -> Seq2SeqState:
        """One step from an embedded token, (B, E)."""
        x, hidden = torch.cat([word, state.feed], 1), []
        for layer, cell in enumerate(self.cells):
            old = state.hidden[:, layer].unbind(1)
            new = cell(x, old) if self.tensors == 2 else (cell(x, old[0]),)
            x = new[0] if layer + 1 == len(self.cells) else self.dropout(new[0])
            hidden.append(torch.stack(new, 1))  # (B, K, D)
        scores = self.score(x, state.keys)
        # not -inf: a row of nothing but padding would become nan
        weights = F.softmax(scores.masked_fill(~state.mask, torch.finfo(scores.dtype).min), 1)
        context = (weights[:, None] @ state.memory)[:, 0]
        feed = torch.tanh(self.combine(torch.cat([context, x], 1)))
        return state._replace(hidden=torch.stack(hidden, 1), feed=feed, weights=weights)


def _places(x: Tensor, index: Tensor) -> Tensor:
    """Tokens `index`, (B, N), of each row of (B, S, D): (B, N, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def seq2seq_additive(
    source_vocab_size: int = 10_000,
    target_vocab_size: int = 10_000,
    cell: Literal["gru", "lstm"] = "gru",
    embedding: int = 256,
    width: int = 512,
    layers: int = 1,
    dropout: float = 0.3,
    padding: int = 0,
) -> Seq2Seq:
    """14,320,912 parameters. Bahdanau et al. 2014, table 1, WMT14 en-fr, 1000 units: 26.75 BLEU, 17.82 without attention."""
    size = Seq2SeqSize(embedding, width, layers)
    return Seq2Seq(source_vocab_size, target_vocab_size, "additive", cell, size, dropout, padding)


def seq2seq_dot(
    source_vocab_size: int = 10_000,
    target_vocab_size: int = 10_000,
    cell: Literal["gru", "lstm"] = "lstm",
    embedding: int = 256,
    width: int = 512,
    layers: int = 1,
    dropout: float = 0.3,
    padding: int = 0,
) -> Seq2Seq:
    """14,977,808 parameters. Luong et al. 2015, table 4, WMT14 en-de, 4 layers of 1000 units: 18.6 BLEU."""
    size = Seq2SeqSize(embedding, width, layers)
    return Seq2Seq(source_vocab_size, target_vocab_size, "dot", cell, size, dropout, padding)


def seq2seq_general(
    source_vocab_size: int = 10_000,
    target_vocab_size: int = 10_000,
    cell: Literal["gru", "lstm"] = "lstm",
    embedding: int = 256,
    width: int = 512,
    layers: int = 1,
    dropout: float = 0.3,
    padding: int = 0,
) -> Seq2Seq:
    """15,239,952 parameters. Luong et al. 2015, table 4, WMT14 en-de, 4 layers of 1000 units: 17.3 BLEU."""
    size = Seq2SeqSize(embedding, width, layers)
    return Seq2Seq(source_vocab_size, target_vocab_size, "general", cell, size, dropout, padding)
