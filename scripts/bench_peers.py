"""What bench_language.py compares with: nanoGPT's network, written from its published description, and transformers' models."""

import math
from collections.abc import Iterator
from typing import Any


def _importable() -> None:
    """transformers imports torchaudio where that is there, which refuses a torch of another CUDA; so ours comes first."""
    import importlib.util

    if importlib.util.find_spec("torchaudio"):
        from dlzoo.data.waveforms import torchaudio

        torchaudio()


def nano_gpt(size: tuple[int, int, int], vocabulary: int, context: int, like: Any = None) -> Any:
    """nanoGPT's network from its README: blocks of LayerNorm, causal attention by torch's kernel, and a perceptron with GELU;
    the logits of all tokens in training, of the last in evaluation. With `like`, a network of ours, its weights."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    (depth, heads, width), bias = size, like is not None

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = (nn.LayerNorm(width, bias=bias) for _ in range(2))
            self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
            self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = (part.view(b, t, heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(width, 2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).contiguous().view(b, t, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh" if like is not None else "none"))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.layers = nn.ModuleList(Layer() for _ in range(depth))
            self.norm = nn.LayerNorm(width, bias=bias)
            for name, weight in self.named_parameters():
                if weight.ndim > 1:
                    last = name.endswith(("proj.weight", "down.weight"))
                    nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth) if last else 0.02)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
            for layer in self.layers:
                x = layer(x)
            x = self.norm(x)
            return F.linear(x if self.training else x[:, -1:], self.tokens.weight)

    net = Net()
    if like is not None:
        with torch.no_grad():
            for own, other in zip(net.parameters(), _in_order(like), strict=True):
                own.copy_(other)
        net.eval()
    return net


def _in_order(net: Any) -> Iterator[Any]:
    """The weights of our GPT in the order in which the network above has them."""
    yield from (net.tokens.weight, net.positions.weight)
    for block in net.blocks:
        for module in (block.norm1, block.norm2, block.attention.qkv, block.attention.proj, block.mlp[0], block.mlp[2]):
            yield from (module.weight, module.bias)
    yield from (net.norm.weight, net.norm.bias)


def again_and_again(net: Any, tokens: Any, count: int, context: int) -> Any:
    """The likeliest token each time, from the whole window."""
    import torch

    with torch.no_grad():
        for _ in range(count):
            tokens = torch.cat([tokens, net(tokens[:, -context:])[:, -1].argmax(-1, keepdim=True)], 1)
    return tokens[:, -count:]


def transformers_gpt(ours: Any, context: int) -> Any:
    """transformers' GPT-2 with our weights."""
    import torch

    _importable()
    from transformers import GPT2Config, GPT2LMHeadModel

    width, depth, heads = ours.norm.weight.numel(), len(ours.blocks), ours.blocks[0].attention.heads
    vocabulary = len(ours.tokens.weight)
    sizes = {"n_layer": depth, "n_head": heads, "n_embd": width, "n_positions": context, "vocab_size": vocabulary}
    config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=None)  # no token ends a text
    net = GPT2LMHeadModel(config).eval()
    layers = [
        part for h in net.transformer.h for part in (h.ln_1, h.ln_2, h.attn.c_attn, h.attn.c_proj, h.mlp.c_fc, h.mlp.c_proj)
    ]
    weights = [net.transformer.wte.weight, net.transformer.wpe.weight]
    weights += [value for part in [*layers, net.transformer.ln_f] for value in (part.weight, part.bias)]
    with torch.no_grad():
        for theirs, own in zip(weights, _in_order(ours), strict=True):
            stored_across = own.ndim == 2 and theirs is not weights[0] and theirs is not weights[1]
            theirs.copy_(own.T if stored_across else own)
    return net


def their_greedy(net: Any, tokens: Any, count: int) -> Any:
    import torch

    mask = torch.ones_like(tokens)
    found = net.generate(
        tokens, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False, use_cache=True
    )
    return found[:, -count:]


def bert(layers: int, width: int, heads: int, hidden: int) -> Any:
    """The encoder of transformers' BertModel, without what comes before and after it."""
    _importable()
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEncoder

    config = BertConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden)
    config.hidden_act, config.hidden_dropout_prob, config.attention_probs_dropout_prob = "relu", 0.0, 0.0
    config._attn_implementation = "sdpa"
    return BertEncoder(config)
