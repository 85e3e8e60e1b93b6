"""Llama, equal to transformers'; what it may see, and that a cache changes nothing."""

import pytest
import torch
from torch import nn

from dlzoo.models.language import llama
from dlzoo.models.language.llama import GatedMLP, Llama, LlamaSize
from dlzoo.nn.kv_cache import KVCache
from dlzoo.nn.positions import Rotary

TINY = LlamaSize(width=24, depth=2, heads=4, kv_heads=2, hidden=20)


def randomised(net: nn.Module) -> nn.Module:
    """Float64, every tensor at random: norms of 1 would hide a mix-up."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.double().named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=0.3)
    return net


def tiny(kv_heads: int = 2, **arguments) -> Llama:
    size = LlamaSize(width=24, depth=2, heads=4, kv_heads=kv_heads, hidden=20)
    return randomised(Llama(size, vocab_size=11, context=16, **arguments)).eval()


def some(rows: int, length: int, vocab_size: int = 11) -> torch.Tensor:
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


# --- what the papers say


def test_llama_tiny_is_as_large_as_it_says():
    net = llama.llama_tiny()
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert parameters == 742_784 and f"{parameters:,} parameters" in llama.llama_tiny.__doc__
    assert net(some(2, 64, 65)).shape == (2, 64, 65)
    assert not [name for name, _ in net.named_parameters() if name.endswith("bias")]


def test_no_token_sees_a_later_one():
    net, tokens = tiny(), some(2, 9)
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % 11
    before, after = net(tokens), net(other)
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before - after)[:, 5:].abs().amax(-1) > 1e-6).all()  # and each sees all earlier ones


def test_the_order_matters_and_the_place_alone_does_not():
    """One layer of attention: what follows knows distances, so all tokens may move together; they may not change places."""
    net = randomised(Llama(LlamaSize(24, 1, 4, 2, 20), vocab_size=11, context=16)).eval()
    x = net.tokens(some(1, 5))
    near, far = (net.blocks[0](x, net.rotary(torch.arange(5) + start)) for start in (0, 9))
    torch.testing.assert_close(near, far, rtol=1e-5, atol=1e-5)
    mixed = net.blocks[0](x[:, [1, 0, 2, 3, 4]], net.rotary(torch.arange(5)))
    assert (mixed[:, 4] - near[:, 4]).abs().max() > 1e-3


def test_a_gate_that_is_shut_lets_nothing_through():
    mlp = GatedMLP(4, 6)
    x = torch.randn(3, 4)
    assert mlp(x).abs().max() > 0
    torch.testing.assert_close(mlp(x), (mlp.gate(x) * mlp.gate(x).sigmoid() * mlp.up(x)) @ mlp.down.weight.T)
    nn.init.zeros_(mlp.gate.weight)
    assert mlp(x).abs().max() == 0


def test_every_parameter_gets_a_gradient():
    net = Llama(TINY, vocab_size=11, context=5)
    net(some(2, 5)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


# --- parity


def ours_from(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' state dict, or gradients, under our names."""
    names = {
        "model.embed_tokens.": "tokens.",
        "model.layers.": "blocks.",
        "model.norm.": "norm.",
        "lm_head.": "head.",
        "input_layernorm.": "norm1.",
        "post_attention_layernorm.": "norm2.",
        "self_attn.o_proj.": "attention.proj.",
        "_proj.": ".",
    }
    state = {}
    for key, tensor in theirs.items():
        for their_name, our_name in names.items():
            if "self_attn" not in key or their_name != "_proj.":
                key = key.replace(their_name, our_name)
        state[key] = tensor
    for key in [key for key in state if key.endswith("self_attn.q_proj.weight")]:
        parts = [state.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        state[key.replace("self_attn.q_proj", "attention.qkv")] = torch.cat(parts)
    return state


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max().item()
    assert scale > 0, what
    assert (ours - theirs).abs().max().item() <= 1e-12 * scale, what


class WideNorm(nn.Module):
    """transformers' norm in the type of its input: its own rounds to float32 on the way, which hides all below 1e-7."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)


def with_wide_norms(net: nn.Module) -> nn.Module:
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(parent, name, WideNorm(child))
    return net


@pytest.mark.parametrize(("kv_heads", "base"), [(4, 10_000.0), (2, 500_000.0), (1, 10_000.0)], ids=["all", "two", "one"])
def test_equals_transformers_in_outputs_and_gradients(kv_heads, base, transformers):
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=16,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        attn_implementation="sdpa",  # the eager one has its softmax in float32
        use_cache=False,
    )
    theirs, ours = with_wide_norms(randomised(transformers.LlamaForCausalLM(config))), tiny(kv_heads, base=base)
    ours.load_state_dict(ours_from(theirs.state_dict()))
    tokens = some(3, 9)
    outputs = [ours(tokens), theirs(tokens).logits]
    assert_near(*outputs, "logits")
    for out in outputs:
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = ours_from({key: parameter.grad for key, parameter in theirs.named_parameters()})
    own = dict(ours.named_parameters())
    assert set(own) == set(gradients)
    for key, parameter in own.items():
        assert_near(parameter.grad, gradients[key], f"gradient of {key}")


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_turns_as_transformers_does_to_the_last_bit(base, transformers):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {"rope_type": "default", "rope_theta": base}
    config = transformers.LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters=rope)
    places = torch.arange(4096)
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), places[None])
    ours = Rotary(32, base)(places)
    assert torch.equal(ours[0], cos[0]) and torch.equal(ours[1], sin[0])


# --- the cache


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 1, 3, 1]], ids=["whole", "singly", "pieces"])
def test_the_cache_changes_nothing(pieces):
    net, tokens, cache = tiny(), some(3, 9), KVCache(12)
    with torch.inference_mode():
        out = torch.cat([net(piece, cache) for piece in tokens.split(pieces, 1)], 1)
        torch.testing.assert_close(out, net(tokens), rtol=1e-9, atol=1e-9)
    assert cache.keys[0].shape == (3, 2, 12, 6)  # of the shared heads alone


def test_prompts_of_unequal_length_are_answered_as_if_alone():
    net, lengths, steps = tiny(), [2, 7, 4], 6
    rows = some(3, 7 + steps)
    padded = rows[:, :7].clone()
    padded[0, 2:], padded[2, 4:] = 9, 10
    with torch.inference_mode():
        cache = KVCache(7 + steps)
        found = [net(padded, cache)[torch.arange(3), torch.tensor(lengths) - 1]]
        cache.keep(torch.tensor(lengths))
        for step in range(steps):
            found.append(net(torch.stack([rows[i, n + step] for i, n in enumerate(lengths)])[:, None], cache)[:, 0])
        for i, n in enumerate(lengths):
            alone = net(rows[i : i + 1, : n + steps])[0, n - 1 :]
            torch.testing.assert_close(torch.stack(found, 1)[i], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Llama(LlamaSize(10, 2, 3, 3, 8)), "width must be a multiple of heads, 3, got 10"),
        (lambda: Llama(LlamaSize(24, 2, 4, 3, 8)), "heads must be a multiple of kv_heads, 3, got 4"),
        (lambda: Llama(LlamaSize(12, 2, 4, 2, 8)), "width must be even and at least 2, got 3"),
        (lambda: Llama(LlamaSize(24, 2, 4, 2, 0)), "hidden must be at least 1, got 0"),
        (lambda: Llama(TINY, vocab_size=0), "vocab_size must be at least 1, got 0"),
        (lambda: tiny()(some(1, 17)), "tokens must be at most 16, the context, got 17"),
    ],
    ids=["width", "kv_heads", "odd", "hidden", "vocab_size", "tokens"],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
