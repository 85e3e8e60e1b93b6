"""Attention: each place asks, each place has a key and a value, and the answer is the mean of the values, weighed by the fit.

softmax(q k / sqrt(d)) v, for several questions (heads) at once. A mask says what may be seen; `causal` is the one of language
models, no place sees a later one. With fewer keys than questions, groups of heads share them: less to keep while generating.

Source: Vaswani et al. 2017, Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3.2; the shared keys are
    Ainslie et al. 2023, GQA, https://arxiv.org/abs/2305.13245, section 2.2.
Differs from it: nothing. `attend` computes it by torch's fused kernel, or plainly where that is faster: on a CPU in bfloat16
    and at the lengths of small language models, a training step of the fused one takes two to four times as long.

Shapes: B batch, T questions, S keys, D width, h heads of questions, g heads of keys and values (h is a multiple), d = D / h.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MultiHeadAttention", "attend", "attention_weights"]

PLAIN = 512  # keys; up to here the plain way is the faster one on a CPU in bfloat16, from 1024 on the fused kernel is
PLAIN_CAUSAL = 128  # keys; the same for a causal mask where no gradient is wanted, and where the fused kernel has tiles (AMX)
TILES = bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())  # torch has no public word for it

Rotate = Callable[[Tensor], Tensor]
Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """The values, weighed.

    Args:
        query: the questions.
        key: what they are compared with.
        value: what they get.
        mask: boolean, true where a question may see a key; one that sees nothing gets zeros. Or numbers that are added to the
            scores, minus infinity where nothing may be seen.
        causal: the questions are of the last T of the S places, and see no later one.
        dropout: how likely a weight is dropped. It is the caller's to give 0 in evaluation.

    Shape:
        query (B, h, T, d), key and value (B, g, S, d), mask (T, S) or more that broadcasts to (B, h, T, S) -> (B, h, T, d).
    """
    if causal and not torch.compiler.is_exporting() and query.shape[2] == 1:
        causal = False  # the last place sees all: no mask is made for each token that is generated
    whole = mask is None and causal and bool(query.shape[2] == key.shape[2])  # what the kernel calls causal
    if _plain_is_faster(query, key, whole):
        weights = F.dropout(attention_weights(query, key, mask, causal), dropout)
        return weights @ _for_all_heads(value, query)
    groups, questions = query.shape[1] // key.shape[1], query.shape[2]
    if groups > 1 and questions == 1 and (mask is None or mask.ndim < 3 or mask.shape[-3] == 1):
        # the heads of a group become the questions of one: the keys of all that was generated are not copied for each
        grouped = query.reshape(query.shape[0], key.shape[1], groups, query.shape[3])
        return F.scaled_dot_product_attention(grouped, key, value, mask, dropout).reshape(query.shape)
    if not whole:
        mask = _visible(mask, causal, questions, key.shape[2], query.device)
    key, value = _for_all_heads(key, query), _for_all_heads(value, query)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=whole)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """How much each question takes of each value; the arguments are `attend`'s. For pictures, and the plain way to compute it.

    Shape:
        query (B, h, T, d), key (B, g, S, d) -> (B, h, T, S), rows that sum to 1, or to 0 where the mask shows nothing.
    """
    scores = (query * query.shape[-1] ** -0.5) @ _for_all_heads(key, query).transpose(-2, -1)
    visible = _visible(mask, causal, scores.shape[-2], scores.shape[-1], scores.device)
    if visible is None:
        return scores.softmax(-1)
    if visible.dtype != torch.bool:
        return (scores + visible.to(scores.dtype)).softmax(-1)
    # the lowest number and not minus infinity: where nothing may be seen, that would be 0 / 0, and its gradient too
    lowest = torch.finfo(scores.dtype).min
    weights = (scores + torch.zeros_like(visible, dtype=scores.dtype).masked_fill(~visible, lowest)).softmax(-1)
    return weights if mask is None else weights * visible.any(-1, keepdim=True)


class MultiHeadAttention(nn.Module):
    """Questions, keys and values are linear maps of the input, one for each head; a last map mixes what the heads found.

    Args:
        width: D.
        heads: h.
        kv_heads: g, heads of keys and values; None for one to each head of questions.
        bias: whether the four maps have one.
        dropout: how likely a weight is dropped in training.

    Shape:
        x (B, T, D), memory (B, S, D) -> (B, T, D).

    Raises:
        ValueError: a number below 1, width is no multiple of heads, or heads none of kv_heads.
    """

    def __init__(self, width: int, heads: int, kv_heads: int | None = None, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        for name, value in (("width", width), ("heads", heads), ("kv_heads", kv_heads)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, {heads}, got {width}")
        if heads % kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads, {kv_heads}, got {heads}")
        self.heads, self.kv_heads, self.dropout = heads, kv_heads, dropout
        self.qkv = nn.Linear(width, width + 2 * kv_heads * (width // heads), bias=bias)  # questions, keys, values
        self.proj = nn.Linear(width, width, bias=bias)

    def questions(self, x: Tensor, memory: Tensor | None = None, rotate: Rotate | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Questions of x (B, h, T, d); keys and values of the memory, or else of x: (B, g, S, d)."""
        width, d = x.shape[-1], x.shape[-1] // self.heads
        if memory is None:
            # one view of all heads: the keys' come after the questions', the values' after the keys'
            heads = self.qkv(x).view(x.shape[0], x.shape[1], -1, d).transpose(1, 2)  # (B, h + 2 g, T, d)
            q, k, v = heads.split_with_sizes([self.heads, self.kv_heads, self.kv_heads], 1)
        else:
            bias = self.qkv.bias
            q = F.linear(x, self.qkv.weight[:width], None if bias is None else bias[:width])
            kv = F.linear(memory, self.qkv.weight[width:], None if bias is None else bias[width:])
            q = q.unflatten(-1, (self.heads, d)).transpose(1, 2)
            k, v = kv.unflatten(-1, (2, self.kv_heads, d)).transpose(1, 3).unbind(2)
        return (q, k, v) if rotate is None else (rotate(q), rotate(k), v)

    def weights(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        rotate: Rotate | None = None,
    ) -> Tensor:
        """How much each place of x takes of each place it may see: (B, h, T, S); without dropout."""
        q, k, _ = self.questions(x, memory, rotate)
        return attention_weights(q, k, mask, causal)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        rotate: Rotate | None = None,
        store: Store | None = None,
    ) -> Tensor:
        """What each place of x finds.

        Args:
            x: the places that ask.
            memory: the places that answer; None for x itself.
            mask, causal: as `attend` takes them.
            rotate: puts the place into questions and keys (`dlzoo.nn.positions.Rotary`).
            store: gets the new keys and values and gives those of all places so far (`dlzoo.nn.kv_cache.KVCache.append`).
        """
        q, k, v = self.questions(x, memory, rotate)
        if store is not None:
            k, v = store(k, v)
        y = attend(q, k, v, mask, causal, self.dropout if self.training else 0.0)  # (B, h, T, d)
        return self.proj(y.transpose(1, 2).flatten(2))  # (B, T, D)


def _plain_is_faster(query: Tensor, key: Tensor, whole: bool) -> bool:
    small = query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.compiler.is_exporting()
    if not small or key.shape[2] > PLAIN:
        return False
    # of a causal mask the kernel leaves half of the work out; with tiles only its way back is slow
    trains = torch.is_grad_enabled() and query.requires_grad
    return trains or not whole or bool(key.shape[2] <= PLAIN_CAUSAL) or not TILES


def _for_all_heads(key: Tensor, query: Tensor) -> Tensor:
    """Keys or values of g heads, each repeated for the heads of questions that share it."""
    groups = query.shape[1] // key.shape[1]
    return key if groups == 1 else key.repeat_interleave(groups, 1)


def _visible(mask: Tensor | None, causal: bool, questions: int, keys: int, device: torch.device) -> Tensor | None:
    """One mask for both."""
    if not causal:
        return mask
    past = torch.ones(questions, keys, dtype=torch.bool, device=device).tril(keys - questions)
    if mask is None:
        return past
    return mask & past if mask.dtype == torch.bool else mask.masked_fill(~past, float("-inf"))
