"""Attention against its formula in NumPy, and what a mask hides."""

import numpy as np
import pytest
import torch
from torch import nn

from dlzoo.nn import attention
from dlzoo.nn.attention import MultiHeadAttention, attend, attention_weights

DTYPES = [pytest.param(torch.float32, id="fused"), pytest.param(torch.bfloat16, id="plain")]


def reference(q, k, v, mask=None, causal=False):
    """One head and one question at a time, in float64: the answer and the weights."""
    q, k, v = (x.double().numpy() for x in (q, k, v))
    batch, heads, questions, d = q.shape
    keys, groups = k.shape[2], heads // k.shape[1]
    out, weights = np.zeros(q.shape), np.zeros((batch, heads, questions, keys))
    if mask is not None:
        mask = np.broadcast_to(mask.double().numpy() if mask.is_floating_point() else mask.numpy(), weights.shape)
    for b, h, t in np.ndindex(batch, heads, questions):
        score = k[b, h // groups] @ q[b, h, t] / np.sqrt(d)
        if mask is not None:
            score = np.where(mask[b, h, t], score, -np.inf) if mask.dtype == bool else score + mask[b, h, t]
        if causal:
            score[t + 1 + keys - questions :] = -np.inf
        if np.isneginf(score).all():
            continue
        row = np.exp(score - score.max())
        weights[b, h, t] = row / row.sum()
        out[b, h, t] = weights[b, h, t] @ v[b, h // groups]
    return out, weights


def tensors(questions=5, keys=5, kv_heads=4, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((2, 4, questions, 6), (2, kv_heads, keys, 6), (2, kv_heads, keys, 6))
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]


def masks(questions, keys):
    torch.manual_seed(1)
    seen = torch.rand(2, 1, questions, keys) < 0.6
    seen[..., 0] = True
    return {"none": None, "boolean": seen, "heads": torch.randn(4, questions, keys), "padding": seen[:, :, :1]}


CASES = [
    pytest.param(questions, keys, kv_heads, causal, mask, id=f"{questions}of{keys}-{kv_heads}kv-{mask}{'-causal' * causal}")
    for questions, keys in ((5, 5), (3, 7), (1, 7))
    for kv_heads in (4, 2, 1)
    for causal in (False, True)
    for mask in ("none", "boolean", "heads", "padding")
]


@pytest.mark.parametrize(("questions", "keys", "kv_heads", "causal", "mask"), CASES)
def test_equals_the_formula(questions, keys, kv_heads, causal, mask):
    q, k, v = tensors(questions, keys, kv_heads)
    mask = masks(questions, keys)[mask]
    out, weights = reference(q, k, v, mask, causal)
    np.testing.assert_allclose(attend(q, k, v, mask, causal).numpy(), out, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(attention_weights(q, k, mask, causal).numpy(), weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mask", ["none", "boolean", "heads"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_plain_way_in_bfloat16_is_the_formula_within_its_rounding(mask, causal):
    q, k, v = tensors(kv_heads=2, dtype=torch.bfloat16)
    assert attention._plain_is_faster(q, k, causal and mask == "none")
    mask = masks(5, 5)[mask]
    out, _ = reference(q, k, v, mask, causal)
    np.testing.assert_allclose(attend(q, k, v, mask, causal).float().numpy(), out, atol=0.03)


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_ways_have_the_same_gradients(dtype):
    """Against the weights' formula in float64; in bfloat16 the fused kernel is not taken."""
    results = []
    for way, kind in ((attend, dtype), (lambda q, k, v, causal: attention_weights(q, k, causal=causal) @ v, torch.float64)):
        leaves = [x.to(dtype).to(kind).requires_grad_() for x in tensors()]
        out = way(*leaves, causal=True)
        (out * torch.linspace(-1, 1, out.numel(), dtype=kind).view_as(out)).sum().backward()
        results.append([leaf.grad.double() for leaf in leaves])
    for ours, theirs in zip(*results, strict=True):
        bound = 1e-5 if dtype == torch.float32 else 0.05
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


@pytest.mark.parametrize("tiles", [False, True])
def test_the_kernel_is_chosen_by_device_type_and_length(tiles, monkeypatch):
    monkeypatch.setattr(attention, "TILES", tiles)
    long, causal = attention.PLAIN + 1, attention.PLAIN_CAUSAL
    makes = {
        (torch.bfloat16, attention.PLAIN, "cpu", True, True): True,
        (torch.bfloat16, long, "cpu", True, True): False,
        (torch.float32, 8, "cpu", True, True): False,
        (torch.bfloat16, 8, "meta", True, True): False,
        # without a way back, the kernel that leaves out what a causal mask hides, where that is enough of it
        (torch.bfloat16, causal, "cpu", False, True): True,
        (torch.bfloat16, causal + 1, "cpu", False, True): not tiles,
        (torch.bfloat16, causal + 1, "cpu", False, False): True,
    }
    for (dtype, keys, device, trains, whole), plain in makes.items():
        query, key = (torch.empty(1, 1, n, 4, dtype=dtype, device=device, requires_grad=trains) for n in (2, keys))
        assert attention._plain_is_faster(query, key, whole) is plain
        with torch.no_grad():
            assert attention._plain_is_faster(query, key, whole) is (plain and not (tiles and trains and keys > causal))


@pytest.mark.parametrize("dtype", DTYPES)
def test_who_sees_nothing_gets_zeros_and_spoils_no_gradient(dtype):
    leaves = [x.requires_grad_() for x in tensors(dtype=dtype)]
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1] = False
    out = attend(*leaves, mask)
    assert out[1].abs().max() == 0 and out[0].abs().max() > 0
    assert attention_weights(*leaves[:2], mask)[1].abs().max() == 0
    out.float().square().sum().backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all() and leaf.grad[1].abs().max() == 0
    assert leaves[2].grad[0].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_what_is_hidden_changes_nothing(causal, dtype):
    q, k, v = tensors(dtype=dtype)
    mask = torch.tensor([[True, True, True, False, True]]) if not causal else None
    before = attend(q, k, v, mask, causal)
    k[:, :, 3], v[:, :, 3] = 7.0, -7.0
    after = attend(q, k, v, mask, causal)
    blind = slice(None) if not causal else slice(0, 3)
    assert torch.equal(before[:, :, blind], after[:, :, blind])
    if causal:
        assert (before[:, :, 3:] - after[:, :, 3:]).abs().amax((0, 1, 3)).min() > 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_drops_weights_and_keeps_their_mean(dtype):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 400, 8).to(dtype), torch.randn(1, 1, 100, 8).to(dtype), torch.ones(1, 1, 100, 8).to(dtype)
    out = attend(q, k, v, dropout=0.5).float()  # all values are 1: what is left of the weights
    assert out.std() > 0.05 and out.mean().item() == pytest.approx(1, abs=0.05)


# --- the layer


def randomised(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.double().parameters():
            parameter.normal_(std=0.5)
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_equals_torchs_layer(cross, bias):
    ours = randomised(MultiHeadAttention(12, 3, bias=bias))
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    theirs.load_state_dict(
        {
            {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias"}.get(key, key.replace("proj.", "out_proj.")): value
            for key, value in ours.state_dict().items()
        }
    )
    x, memory = torch.randn(2, 5, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    hidden = torch.zeros(2, 7 if cross else 5, dtype=torch.bool)
    hidden[1, -2:] = True
    results = []
    for layer in (ours, theirs):
        a, b = x.clone().requires_grad_(), memory.clone().requires_grad_()
        if layer is ours:
            mask = ~hidden[:, None, None]
            y = layer(a, b if cross else None, mask)
            weights = layer.weights(a, b if cross else None, mask)
        else:
            keys = b if cross else a
            y, weights = layer(a, keys, keys, key_padding_mask=hidden, average_attn_weights=False)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        gradients = [parameter.grad for _, parameter in sorted(layer.named_parameters(), key=lambda item: item[0][-11:])]
        results.append([y, weights, a.grad, *([b.grad] if cross else []), *sorted(gradients, key=lambda g: tuple(g.shape))])
    for mine, other in zip(*results, strict=True):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= 1e-6 * other.abs().max()


def test_shared_keys_are_repeated_ones():
    """With g heads of keys, the layer is one with h heads whose weights repeat."""
    grouped = randomised(MultiHeadAttention(12, 4, kv_heads=2))
    whole = MultiHeadAttention(12, 4).double()
    state = grouped.state_dict()
    for name in ("weight", "bias"):
        q, k, v = state[f"qkv.{name}"].split([12, 6, 6])
        k, v = (part.unflatten(0, (2, 3)).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v))
        state[f"qkv.{name}"] = torch.cat([q, k, v])
    whole.load_state_dict(state)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(grouped(x, causal=True), whole(x, causal=True))
    assert grouped.qkv.out_features == 12 + 2 * 2 * 3


def test_dropout_is_for_training():
    layer = randomised(MultiHeadAttention(12, 3, dropout=0.5))
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    y = (layer.weights(x) @ layer.questions(x)[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer.proj(y), layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 3), "width must be a multiple of heads, 3, got 10"),
        ((12, 4, 3), "heads must be a multiple of kv_heads, 3, got 4"),
        ((12, 0), "heads must be at least 1, got 0"),
        ((12, 4, 0), "kv_heads must be at least 1, got 0"),
    ],
    ids=["width", "groups", "heads", "kv_heads"],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(*arguments)
