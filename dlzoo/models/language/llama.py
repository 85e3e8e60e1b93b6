"""Llama: the decoder of GPT with what the years after it have changed.

Places turn questions and keys instead of being added; norms scale and do not centre; the perceptron has a gate; heads of
questions share keys and values, so that generation keeps less; no linear map has a bias; reading and writing have tables of
their own.

Source: Touvron et al. 2023, LLaMA, https://arxiv.org/abs/2302.13971, section 2.2; the shared keys are of Llama 2,
    https://arxiv.org/abs/2307.09288, section 2.2. Norm: Zhang, Sennrich 2019, https://arxiv.org/abs/1910.07467; gate: Shazeer
    2020, https://arxiv.org/abs/2002.05202, section 2.
Differs from it: nothing that transformers' Llama computes; questions, keys and values are one linear map here. Places know no
    longest sequence, yet more tokens than the context, which were never trained, are refused.

Shapes: B batch, T tokens, V vocabulary, D width, h heads, d = D / h.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.attention import MultiHeadAttention, Store
from dlzoo.nn.kv_cache import KVCache
from dlzoo.nn.positions import Rotary, rotate

__all__ = ["Block", "GatedMLP", "Llama", "LlamaSize", "llama_tiny"]


@dataclass(frozen=True)
class LlamaSize:
    """A row of the paper's table 2.

    Args:
        width: D, features of each token.
        depth: blocks.
        heads: h, of questions; D is a multiple of it.
        kv_heads: of keys and values; h is a multiple of it.
        hidden: features inside a block's perceptron; the paper has about 8 / 3 of D.
    """

    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int


class GatedMLP(nn.Module):
    """SwiGLU: one map of the input, times silu of another that says how much of it passes.

    Args:
        width: D.
        hidden: features inside.

    Shape:
        (..., D) -> (..., D).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention mixes the tokens so far, a gated perceptron the features of each: x + f(norm(x)).

    Args:
        size: width, heads, kv_heads, hidden.
        epsilon: of the norms.

    Shape:
        (B, T, D) -> (B, T, D).
    """

    def __init__(self, size: LlamaSize, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(size.width, eps=epsilon)
        self.attention = MultiHeadAttention(size.width, size.heads, size.kv_heads, bias=False)
        self.norm2 = nn.RMSNorm(size.width, eps=epsilon)
        self.mlp = GatedMLP(size.width, size.hidden)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None = None, store: Store | None = None) -> Tensor:
        """`turn` is what `Rotary` gives for the places; `mask` and `store` are what a cache gives."""
        turned = partial(rotate, turn=turn)
        x = x + self.attention(self.norm1(x), mask=mask, causal=mask is None, rotate=turned, store=store)
        return x + self.mlp(self.norm2(x))


class Llama(nn.Module):
    """Vectors of tokens, blocks, and for every token how likely each of the vocabulary is to follow.

    Args:
        size: width, depth, heads, kv_heads, hidden.
        vocab_size: V.
        context: tokens that it may see at once.
        base: of the rotary positions.
        epsilon: of the norms.

    Shape:
        tokens (B, T), whole numbers below V -> (B, T, V), logits. With a cache, the tokens go on from those it holds.

    Raises:
        ValueError: a number below 1, a width that is no multiple of the heads, heads none of kv_heads, an odd width of a head;
            and in `forward`, more tokens than the context.
    """

    def __init__(
        self,
        size: LlamaSize,
        vocab_size: int = 32_000,
        context: int = 2048,
        base: float = 10_000.0,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        numbers = {"depth": size.depth, "hidden": size.hidden, "vocab_size": vocab_size, "context": context}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.context = context
        self.tokens = nn.Embedding(vocab_size, size.width)
        self.blocks = nn.ModuleList(Block(size, epsilon) for _ in range(size.depth))
        self.rotary = Rotary(size.width // size.heads, base)
        self.norm = nn.RMSNorm(size.width, eps=epsilon)
        self.head = nn.Linear(size.width, vocab_size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

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
        x, turn = self.tokens(tokens), self.rotary(positions)
        for index, block in enumerate(self.blocks):
            x = block(x, turn, mask, None if cache is None else cache.layer(index))
        return self.norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., V). While generating, only the last token's are needed."""
        return self.head(features)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        return self.logits(self.features(tokens, cache))


def llama_tiny(vocab_size: int = 65, context: int = 64) -> Llama:
    """742,784 parameters: Llama's blocks at the size of `gpt_char`, to compare the two; two heads share keys and values."""
    return Llama(LlamaSize(128, 4, 4, 2, 344), vocab_size, context)
