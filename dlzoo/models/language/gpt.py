"""GPT-2: a stack of attention that sees no later token, trained on one question alone, what comes next.

Each token's vector, plus one for its place, goes through blocks of attention and of a two-layer perceptron, each a correction
to its input. The last vectors are compared with those of all tokens: the table that reads is also the table that writes.

Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, OpenAI, section 2.3 and table 2, and its code
    https://github.com/openai/gpt-2; the first of the family is Radford et al. 2018. `gpt_char` and `gpt_char_large` are
    the settings for a CPU and for a GPU of https://github.com/karpathy/nanoGPT.
Differs from it: dropout is 0 by default, where the paper says nothing and transformers has 0.1; the paper's parameter counts
    (117 M for 124 M) are wrong, as its authors' repository says. nanoGPT's settings have GELU itself, GPT-2 the paper's
    approximation of it by tanh, which on a CPU takes four times as long.

Shapes: B batch, T tokens, V vocabulary, D width, h heads.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.attention import MultiHeadAttention, Store
from dlzoo.nn.kv_cache import KVCache
from dlzoo.nn.positions import LearnedPositions

__all__ = ["GPT", "Block", "GPTSize", "gpt2", "gpt2_large", "gpt2_medium", "gpt2_xl", "gpt_char", "gpt_char_large"]


@dataclass(frozen=True)
class GPTSize:
    """A row of the paper's table 2.

    Args:
        width: D, features of each token.
        depth: blocks.
        heads: h; D is a multiple of it.
    """

    width: int
    depth: int
    heads: int


class Block(nn.Module):
    """Attention mixes the tokens so far, a perceptron the features of each; both correct what they get: x + f(norm(x)).

    Args:
        width: D.
        heads: h.
        dropout: how likely a feature of a correction, or a weight of the attention, is dropped in training.
        bias: whether linear maps and norms have one.
        gelu: the perceptron's: "tanh" approximates it as GPT-2 does, "none" does not.

    Shape:
        (B, T, D) -> (B, T, D).
    """

    def __init__(
        self, width: int, heads: int, dropout: float = 0.0, bias: bool = True, gelu: Literal["tanh", "none"] = "tanh"
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = MultiHeadAttention(width, heads, bias=bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width, bias=bias), nn.GELU(gelu), nn.Linear(4 * width, width, bias=bias))
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None = None, store: Store | None = None) -> Tensor:
        """`mask` replaces the causal one, `store` keeps the keys and values: what a cache gives."""
        x = x + self._dropped(self.attention(self.norm1(x), mask=mask, causal=mask is None, store=store))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, said: Tensor) -> Tensor:
        # not a module: while a text is written token by token, calls of modules that do nothing show in the time
        return F.dropout(said, self.dropout) if self.training else said


class GPT(nn.Module):
    """Vectors of tokens and places, blocks, and for every token how likely each of the vocabulary is to follow.

    Args:
        size: width, depth, heads.
        vocab_size: V.
        context: tokens that it can see at once, as many as there are places.
        dropout: in training, of the embeddings and in the blocks.
        bias: whether linear maps and norms have one.
        gelu: as `Block` has it.

    Shape:
        tokens (B, T), whole numbers below V -> (B, T, V), logits. With a cache, the tokens go on from those it holds.

    Raises:
        ValueError: a number below 1, a width that is no multiple of the heads, a dropout outside [0, 1); and in `forward`, more
            tokens than the context.
    """

    def __init__(
        self,
        size: GPTSize,
        vocab_size: int = 50_257,
        context: int = 1024,
        dropout: float = 0.0,
        bias: bool = True,
        gelu: Literal["tanh", "none"] = "tanh",
    ) -> None:
        super().__init__()
        for name, value in (("depth", size.depth), ("vocab_size", vocab_size), ("context", context)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.context = context
        self.tokens = nn.Embedding(vocab_size, size.width)
        self.positions = LearnedPositions(context, size.width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, dropout, bias, gelu) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, bias=bias)
        self._initialise()

    def features(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Each token's vector after the last norm: (B, T) -> (B, T, D)."""
        count, mask = tokens.shape[1], None
        seen = 0 if cache is None else cache.used
        if not torch.compiler.is_exporting() and seen + count > self.context:  # the file's length stays free
            raise ValueError(f"tokens must be at most {self.context}, the context, got {seen + count}")
        if cache is None:
            positions = torch.arange(count, device=tokens.device)
        else:
            positions, mask = cache.begin(count, tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        for index, block in enumerate(self.blocks):
            x = block(x, mask, None if cache is None else cache.layer(index))
        return self.norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., V). While generating, only the last token's are needed."""
        return F.linear(features, self.tokens.weight)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        return self.logits(self.features(tokens, cache))

    def _initialise(self) -> None:
        """Small normal weights; those that end a correction smaller still, so that 2 x depth of them add up to one."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions.weight, std=0.02)
        for block in self.blocks:
            for last in (block.attention.proj, block.mlp[2]):
                nn.init.normal_(last.weight, std=0.02 * (2 * len(self.blocks)) ** -0.5)


def gpt2(vocab_size: int = 50_257, context: int = 1024, dropout: float = 0.0) -> GPT:
    """124,439,808 parameters; WikiText-103 without training on it: perplexity 37.50 (table 3)."""
    return GPT(GPTSize(768, 12, 12), vocab_size, context, dropout)


def gpt2_medium(vocab_size: int = 50_257, context: int = 1024, dropout: float = 0.0) -> GPT:
    """354,823,168 parameters; WikiText-103 without training on it: perplexity 26.37 (table 3)."""
    return GPT(GPTSize(1024, 24, 16), vocab_size, context, dropout)


def gpt2_large(vocab_size: int = 50_257, context: int = 1024, dropout: float = 0.0) -> GPT:
    """774,030,080 parameters; WikiText-103 without training on it: perplexity 22.05 (table 3)."""
    return GPT(GPTSize(1280, 36, 20), vocab_size, context, dropout)


def gpt2_xl(vocab_size: int = 50_257, context: int = 1024, dropout: float = 0.0) -> GPT:
    """1,557,611,200 parameters; WikiText-103 without training on it: perplexity 17.48 (table 3)."""
    return GPT(GPTSize(1600, 48, 25), vocab_size, context, dropout)


def gpt_char(vocab_size: int = 65, context: int = 64, dropout: float = 0.0) -> GPT:
    """804,096 parameters, without biases; characters of Shakespeare, nanoGPT's README: validation loss 1.88."""
    return GPT(GPTSize(128, 4, 4), vocab_size, context, dropout, bias=False, gelu="none")


def gpt_char_large(vocab_size: int = 65, context: int = 256, dropout: float = 0.2) -> GPT:
    """10,745,088 parameters, without biases; characters of Shakespeare, nanoGPT's README: validation loss 1.4697."""
    return GPT(GPTSize(384, 6, 6), vocab_size, context, dropout, bias=False, gelu="none")
