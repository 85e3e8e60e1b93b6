"""GPT-2, equal to transformers'; what it may see, and that a cache changes nothing."""

import pytest
import torch
from torch import nn

from dlzoo.models.language import gpt
from dlzoo.models.language.gpt import GPT, GPTSize
from dlzoo.nn.kv_cache import KVCache
from dlzoo.pretrained.gpt import convert

TINY = GPTSize(12, 2, 3)
SIZES = {
    "gpt2": (124_439_808, (12, 12, 768)),
    "gpt2_medium": (354_823_168, (24, 16, 1024)),
    "gpt2_large": (774_030_080, (36, 20, 1280)),
    "gpt2_xl": (1_557_611_200, (48, 25, 1600)),
}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def randomised(net: nn.Module) -> nn.Module:
    """Float64, every tensor at random: norms of 1 and 0 and biases of 0 would hide a mix-up."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.double().named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name or "ln_" in name else 0.0, std=0.3)
    return net


def tiny(**arguments) -> GPT:
    return randomised(GPT(TINY, vocab_size=11, context=16, **arguments)).eval()


def some(rows: int, length: int, vocab_size: int = 11) -> torch.Tensor:
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


# --- what the paper says


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_transformers(name, transformers):
    parameters, (depth, heads, width) = SIZES[name]
    with torch.device("meta"):
        ours = getattr(gpt, name)()
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=depth, n_head=heads, n_embd=width))
    assert count(ours) == count(theirs) == parameters
    assert f"{parameters:,} parameters" in getattr(gpt, name).__doc__


def test_gpt_char_is_nanogpts():
    """Its README counts 0.80 M, without the places; its GELU is not approximated."""
    net = gpt.gpt_char()
    assert {block.mlp[1].approximate for block in net.blocks} == {"none"}
    assert count(net) == 804_096 and f"{count(net):,} parameters" in gpt.gpt_char.__doc__
    assert round((count(net) - net.positions.weight.numel()) / 1e6, 2) == 0.80
    assert not [name for name, _ in net.named_parameters() if name.endswith("bias")]
    assert net(some(2, 64, 65)).shape == (2, 64, 65)


def test_gpt_char_large_is_nanogpts():
    """Its README counts 10.65 M, without the places."""
    net = gpt.gpt_char_large()
    assert count(net) == 10_745_088 and f"{count(net):,} parameters" in gpt.gpt_char_large.__doc__
    assert round((count(net) - net.positions.weight.numel()) / 1e6, 2) == 10.65
    assert (len(net.blocks), net.blocks[0].attention.heads, net.tokens.embedding_dim) == (6, 6, 384)
    assert net.context == 256 and net.dropout.p == 0.2


def test_the_start_is_the_papers():
    """Section 2.3: what ends a correction starts smaller by the root of their number. The loss is that of knowing nothing."""
    torch.manual_seed(0)
    net = gpt.gpt_char()
    for block in net.blocks:
        assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert block.attention.proj.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.1)
        assert block.mlp[2].weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.1)
    tokens = some(8, 64, 65)
    loss = nn.functional.cross_entropy(net(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(65.0).log().item(), abs=0.1)


def test_no_token_sees_a_later_one():
    net, tokens = tiny(), some(2, 9)
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % 11
    before, after = net(tokens), net(other)
    assert torch.equal(before[:, :5], after[:, :5])
    assert ((before - after)[:, 5:].abs().amax(-1) > 1e-6).all()  # and each sees all earlier ones


def test_the_table_that_reads_also_writes():
    net = tiny()
    features = net.features(some(2, 5))
    torch.testing.assert_close(net.logits(features), features @ net.tokens.weight.T)
    net(some(2, 5)).sum().backward()
    assert (net.tokens.weight.grad.abs().sum(1) > 0).all()  # also of tokens that were not read


def test_every_parameter_gets_a_gradient():
    net = GPT(TINY, vocab_size=11, context=5)
    net(some(2, 5)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_dropout_is_for_training():
    net, tokens = tiny(dropout=0.5).train(), some(2, 5)
    assert not torch.equal(net(tokens), net(tokens))
    assert torch.equal(net.eval()(tokens), net(tokens))


# --- parity


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max().item()
    assert scale > 0, what
    assert (ours - theirs).abs().max().item() <= 1e-6 * scale, what


def their_model(transformers, depth: int, **sizes) -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=depth, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager", use_cache=False, **sizes
    )
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize(("gelu", "their_gelu"), [("tanh", "gelu_new"), ("none", "gelu")])
def test_equals_transformers_in_outputs_and_gradients(gelu, their_gelu, transformers):
    sizes = {"n_embd": 12, "n_head": 3, "vocab_size": 11, "n_positions": 16}
    theirs = randomised(their_model(transformers, 2, activation_function=their_gelu, **sizes))
    ours = GPT(TINY, vocab_size=11, context=16, gelu=gelu).double()
    ours.load_state_dict(convert("gpt2", theirs.state_dict()))
    tokens = some(3, 7)
    outputs = [ours(tokens), theirs(tokens).logits]
    assert_near(*outputs, "logits")
    for out in outputs:
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = convert("gpt2", {key: parameter.grad for key, parameter in theirs.named_parameters()})
    own = dict(ours.named_parameters())
    assert set(own) == set(gradients)
    for key, parameter in own.items():
        assert_near(parameter.grad, gradients[key], f"gradient of {key}")


@pytest.mark.slow
def test_gpt2_equals_transformers_at_full_size(transformers):
    torch.manual_seed(0)
    theirs = their_model(transformers, 12)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    with torch.device("meta"):
        ours = gpt.gpt2()
    ours.load_state_dict(convert("gpt2", theirs.state_dict()), assign=True)
    tokens = some(1, 20, 50_257)
    with torch.inference_mode():
        for net in (ours, theirs):
            net.double().eval()
        assert_near(ours(tokens), theirs(tokens).logits, "logits")


# --- the cache


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 1, 3, 1]], ids=["whole", "singly", "pieces"])
def test_the_cache_changes_nothing(pieces):
    net, tokens, cache = tiny(), some(3, 9), KVCache(12)
    with torch.inference_mode():
        out = torch.cat([net(piece, cache) for piece in tokens.split(pieces, 1)], 1)
        torch.testing.assert_close(out, net(tokens), rtol=1e-9, atol=1e-9)


def test_prompts_of_unequal_length_are_answered_as_if_alone():
    """Padded on the right with anything; each row has the logits that it has without cache and company."""
    net, lengths, steps = tiny(), [2, 7, 4], 6
    rows = some(3, 7 + steps)  # what each is given to read, token by token after its prompt
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


def test_rows_of_unequal_length_go_on_by_several_tokens_exactly():
    net, tokens, cache = tiny(), some(2, 9), KVCache(12)
    with torch.inference_mode():
        net(tokens[:, :5], cache)
        cache.keep(torch.tensor([5, 2]))
        more = torch.stack([tokens[0, 5:8], tokens[1, 2:5]])
        out = net(more, cache)
        for row, start in enumerate((5, 2)):
            whole = net(tokens[row : row + 1, : start + 3])[0, start:]
            torch.testing.assert_close(out[row], whole, rtol=1e-9, atol=1e-9)


# --- what goes out, and what is refused


def test_exports_for_any_batch_and_length(tmp_path):
    from dlzoo.export.onnx import export_onnx
    from dlzoo.export.verify import verify_onnx

    pytest.importorskip("onnxruntime")
    net = tiny().float()
    export_onnx(net, some(1, 5), tmp_path / "m.onnx", metadata={}, free={1: "length"}, input_name="tokens")
    report = verify_onnx(net, tmp_path / "m.onnx", [some(1, 5), some(3, 1), some(2, 9), some(5, 16)])
    assert report.max_rel < 1e-5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GPT(GPTSize(10, 2, 3)), "width must be a multiple of heads, 3, got 10"),
        (lambda: GPT(GPTSize(12, 0, 3)), "depth must be at least 1, got 0"),
        (lambda: GPT(TINY, vocab_size=0), "vocab_size must be at least 1, got 0"),
        (lambda: GPT(TINY, 11, context=0), "context must be at least 1, got 0"),
        (lambda: GPT(TINY, 11, dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: tiny()(some(1, 17)), "tokens must be at most 16, the context, got 17"),
    ],
    ids=["width", "depth", "vocab_size", "context", "dropout", "tokens"],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_cache_longer_than_the_context_is_no_way_round_it():
    net, cache = tiny(), KVCache(20)
    net(some(1, 16), cache)
    with pytest.raises(ValueError, match="at most 16, the context, got 17"):
        net(some(1, 1), cache)
