"""The Transformer: one stack of attention reads a sentence, another writes its translation, and nothing is recurrent.

In the encoder each token looks at all others. In the decoder each looks at those before it, and then at what the encoder made
of the source. All positions are trained at once; only writing goes token by token, and then the keys and values of what was
written are kept. Attention does not know places, so sines and cosines of the place are added to the tokens' vectors.

Source: Vaswani et al. 2017, Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3 and table 3; the norm before
    each layer instead of after it is that of Xiong et al. 2020, https://arxiv.org/abs/2002.04745, which trains without warm-up.
Differs from it: linear maps of the attention have biases, as in the authors' later code and torch's. The paper shares one table
    between source, target and head; here that is `tied`, since two languages need not have one vocabulary.

Shapes: B batch, S source tokens, T target tokens, V target vocabulary, D width, h heads, d = D / h, L blocks.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.attention import MultiHeadAttention, attend, attention_weights
from dlzoo.nn.positions import sinusoidal

__all__ = [
    "Correction",
    "CrossAttention",
    "DecoderBlock",
    "EncoderBlock",
    "Transformer",
    "TransformerSize",
    "TransformerState",
    "transformer_base",
    "transformer_small",
]

Pair = tuple[Tensor, Tensor]  # keys and values, each (B, h, tokens, d)


@dataclass(frozen=True)
class TransformerSize:
    """A row of the paper's table 3.

    Args:
        width: D, features of each token, even.
        depth: L, blocks of the encoder and of the decoder.
        heads: h; D is a multiple of it.
        hidden: features between the two layers of a block's perceptron.
    """

    width: int = 512
    depth: int = 6
    heads: int = 8
    hidden: int = 2048


class TransformerState(NamedTuple):
    """All that a decoder knows between two tokens. The batch comes first everywhere.

    Args:
        memory: keys and values of the source, of each block: (B, h, S, d).
        mask: (B, S), True where there is a token.
        past: keys and values of the target so far, of each block: (B, h, T, d).
    """

    memory: tuple[Pair, ...]
    mask: Tensor
    past: tuple[Pair, ...]


class Correction(nn.Module):
    """What a layer says is added to what it was told: norm(x + f(x)), or x + f(norm(x)).

    Args:
        width: D.
        norm_first: the second of the two.
        dropout: share of f's features that training drops.

    Shape:
        (B, T, D) and a function of it -> (B, T, D).
    """

    def __init__(self, width: int, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def before(self, x: Tensor) -> Tensor:
        """What f is told."""
        return self.norm(x) if self.norm_first else x

    def after(self, x: Tensor, said: Tensor) -> Tensor:
        x = x + self.dropout(said)
        return x if self.norm_first else self.norm(x)


class CrossAttention(nn.Module):
    """The target asks, the source answers. What the source has to say is the same for each token, so it is worked out once.

    Args:
        width: D.
        heads: h.

    Shape:
        `remember`: (B, S, D) -> keys and values. x (B, T, D), these, and a mask that broadcasts to (B, h, T, S) -> (B, T, D).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def remember(self, memory: Tensor) -> Pair:
        key, value = self.key_value(memory).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return key, value

    def weights(self, x: Tensor, memory: Pair, mask: Tensor) -> Tensor:
        """How much each token takes of each source token: (B, h, T, S)."""
        return attention_weights(self._questions(x), memory[0], mask)

    def forward(self, x: Tensor, memory: Pair, mask: Tensor) -> Tensor:
        y = attend(self._questions(x), *memory, mask)  # (B, h, T, d)
        return self.proj(y.transpose(1, 2).flatten(2))

    def _questions(self, x: Tensor) -> Tensor:
        return self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Attention among all tokens, then a perceptron for each.

    Args:
        size: D, h and the perceptron's hidden features.
        norm_first: whether each layer's norm comes before it.
        dropout: of each correction.

    Shape:
        (B, S, D) and a mask that broadcasts to (B, h, S, S) -> (B, S, D).
    """

    def __init__(self, size: TransformerSize, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(size.width, size.heads)
        self.mlp = nn.Sequential(nn.Linear(size.width, size.hidden), nn.ReLU(), nn.Linear(size.hidden, size.width))
        self.correct1, self.correct2 = (Correction(size.width, norm_first, dropout) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.correct1.after(x, self.attention(self.correct1.before(x), mask=mask))
        return self.correct2.after(x, self.mlp(self.correct2.before(x)))


class DecoderBlock(nn.Module):
    """Attention to the tokens so far, then to the source, then a perceptron for each.

    Args:
        size: D, h and the perceptron's hidden features.
        norm_first: whether each layer's norm comes before it.
        dropout: of each correction.

    Shape:
        x (B, T, D), what the encoder made of the source (B, S, D), and a mask that broadcasts to (B, h, T, S) -> (B, T, D).
        Token by token, `step` is given the keys and values of it instead.
    """

    def __init__(self, size: TransformerSize, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(size.width, size.heads)
        self.cross = CrossAttention(size.width, size.heads)
        self.mlp = nn.Sequential(nn.Linear(size.width, size.hidden), nn.ReLU(), nn.Linear(size.hidden, size.width))
        self.correct1, self.correct2, self.correct3 = (Correction(size.width, norm_first, dropout) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        x = self.correct1.after(x, self.attention(self.correct1.before(x), causal=True))
        # here, not before all blocks: where devices share the weights, a block has them whole while it computes
        return self._read(x, self.cross.remember(memory), mask)

    def step(self, x: Tensor, memory: Pair, mask: Tensor, past: Pair) -> tuple[Tensor, Pair]:
        """The same for one more token, (B, 1, D), and the keys and values with its own."""
        kept = past

        def store(key: Tensor, value: Tensor) -> Pair:
            nonlocal kept
            kept = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            return kept

        x = self.correct1.after(x, self.attention(self.correct1.before(x), store=store))
        return self._read(x, memory, mask), kept

    def looks(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Where each token of the block's input looks in the source: (B, h, T, S)."""
        x = self.correct1.after(x, self.attention(self.correct1.before(x), causal=True))
        return self.cross.weights(self.correct2.before(x), self.cross.remember(memory), mask)

    def _read(self, x: Tensor, memory: Pair, mask: Tensor) -> Tensor:
        x = self.correct2.after(x, self.cross(self.correct2.before(x), memory, mask))
        return self.correct3.after(x, self.mlp(self.correct3.before(x)))


class Transformer(nn.Module):
    """Encoder, decoder, head.

    Args:
        source_vocab_size: tokens known of the source language.
        target_vocab_size: V.
        size: width, depth, heads, hidden features.
        norm: "post" as in the paper, or "pre": before each layer, with one more at the end of each stack.
        tied: which tables of tokens are one. "head": the target's and the head's; "all": the source's too, as in the paper.
        dropout: share of the features that training drops, of the embedded tokens and of each correction.
        padding: the token that fills up source rows.

    Shape:
        source (B, S) and target (B, T), which begins with the first token and is padded at its end, if at all -> (B, T, V),
        logits of the token after each. A mask (B, S), True where there is a token, may stand for `padding`.

    Raises:
        ValueError: a number is below 1, the width is odd or no multiple of heads, dropout is not in [0, 1), norm or tied is
            unknown, or one table is to serve vocabularies of two sizes.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        size: TransformerSize = TransformerSize(),
        norm: Literal["pre", "post"] = "post",
        tied: Literal["none", "head", "all"] = "head",
        dropout: float = 0.1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        numbers = {"source_vocab_size": source_vocab_size, "target_vocab_size": target_vocab_size}
        for name, value in (numbers | {"depth": size.depth, "heads": size.heads, "hidden": size.hidden}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if size.width < 1 or size.width % size.heads or size.width % 2:
            raise ValueError(f"width must be even and a multiple of heads, {size.heads}, got {size.width}")
        if norm not in ("pre", "post"):
            raise ValueError(f"norm must be 'pre' or 'post', got {norm!r}")
        if tied not in ("none", "head", "all"):
            raise ValueError(f"tied must be 'none', 'head' or 'all', got {tied!r}")
        if tied == "all" and source_vocab_size != target_vocab_size:
            raise ValueError(f"tied='all' needs one vocabulary, got sizes {source_vocab_size} and {target_vocab_size}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.padding, first = padding, norm == "pre"
        # a table that serves twice is one parameter of one module: nothing can take the two apart
        self.source_embedding = None if tied == "all" else nn.Embedding(source_vocab_size, size.width)
        self.target_embedding = nn.Embedding(target_vocab_size, size.width)
        self.encoder = nn.ModuleList(EncoderBlock(size, first, dropout) for _ in range(size.depth))
        self.decoder = nn.ModuleList(DecoderBlock(size, first, dropout) for _ in range(size.depth))
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(size.width) if first else nn.Identity() for _ in range(2))
        self.head = nn.Linear(size.width, target_vocab_size, bias=False) if tied == "none" else None
        self.dropout = nn.Dropout(dropout)
        self._initialise()

    def encode(self, source: Tensor, mask: Tensor | None = None) -> TransformerState:
        """Reads the source, (B, S): the state before the first target token."""
        x, mask = self._read(source, mask)
        memory = tuple(block.cross.remember(x) for block in self.decoder)
        return TransformerState(memory, mask, tuple((key[:, :, :0], value[:, :, :0]) for key, value in memory))

    def step(self, token: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """The last token, (B,) -> logits of the next one, (B, V), and the state after it."""
        x, past = self._embed(self.target_embedding, token[:, None], state.past[0][0].shape[2]), []
        for block, memory, kept in zip(self.decoder, state.memory, state.past, strict=True):
            x, kept = block.step(x, memory, state.mask[:, None, None], kept)
            past.append(kept)
        return self._logits(x[:, 0]), state._replace(past=tuple(past))

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        memory, mask = self._read(source, mask)
        x = self._embed(self.target_embedding, target, 0)
        for block in self.decoder:
            x = block(x, memory, mask[:, None, None])
        return self._logits(x)

    def looks(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where each head of each decoder block looks in the source: (B, L, h, T, S)."""
        (memory, mask), found = self._read(source, mask), []
        x = self._embed(self.target_embedding, target, 0)
        for block in self.decoder:
            found.append(block.looks(x, memory, mask[:, None, None]))
            x = block(x, memory, mask[:, None, None])
        return torch.stack(found, 1)

    def align(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where the decoder looks while it writes the token after each of `target`: (B, T, S), rows that sum to 1.

        The mean of the heads of the last block but one, which is the nearest to what people call an alignment (Garg et al.
        2019, https://arxiv.org/abs/1909.02074).
        """
        return self.looks(source, target, mask)[:, max(len(self.decoder) - 2, 0)].mean(1)

    def _read(self, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the encoder makes of the source, (B, S, D), and the mask."""
        mask = source.ne(self.padding) if mask is None else mask
        x = self._embed(self.target_embedding if self.source_embedding is None else self.source_embedding, source, 0)
        for block in self.encoder:
            x = block(x, mask[:, None, None])
        return self.encoder_norm(x), mask

    def _embed(self, table: nn.Embedding, tokens: Tensor, start: int) -> Tensor:
        """Vectors of tokens (B, T), the first of them at the place `start`: (B, T, D)."""
        x = table(tokens) * table.embedding_dim**0.5
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return self.dropout(x + sinusoidal(places, table.embedding_dim).to(x.dtype))

    def _logits(self, x: Tensor) -> Tensor:
        weight = self.target_embedding.weight if self.head is None else self.head.weight
        return F.linear(self.decoder_norm(x), weight)

    def _initialise(self) -> None:
        """Xavier's for the linear maps, as torch does; vectors of length 1 for the tokens, which are multiplied by sqrt(D)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


def transformer_base(
    source_vocab_size: int = 37_000,
    target_vocab_size: int = 37_000,
    norm: Literal["pre", "post"] = "post",
    tied: Literal["none", "head", "all"] = "all",
    dropout: float = 0.1,
    padding: int = 0,
) -> Transformer:
    """63,082,496 parameters (paper: 65 M, of "about 37,000" tokens); WMT14 en-de there: 27.3 BLEU (table 2)."""
    return Transformer(source_vocab_size, target_vocab_size, TransformerSize(), norm, tied, dropout, padding)


def transformer_small(
    source_vocab_size: int = 10_000,
    target_vocab_size: int = 10_000,
    norm: Literal["pre", "post"] = "pre",
    tied: Literal["none", "head", "all"] = "head",
    dropout: float = 0.1,
    padding: int = 0,
) -> Transformer:
    """9,074,688 parameters, 5.1 M of them the tokens': a size of our own, for 29,000 sentences and a CPU."""
    return Transformer(source_vocab_size, target_vocab_size, TransformerSize(256, 3, 8, 512), norm, tied, dropout, padding)
