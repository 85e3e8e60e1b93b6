"""Attention Is All You Need, equal to torch's nn.Transformer."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.models.language import transformer
from dlzoo.models.language.transformer import Transformer, TransformerSize, TransformerState, transformer_small
from dlzoo.nn.positions import sinusoidal
from dlzoo.ops.search import beam_search, greedy_search, select

SIZES = {"transformer_base": 63_082_496, "transformer_small": 9_074_688}
TINY = TransformerSize(width=12, depth=2, heads=3, hidden=20)
VOCABULARY, LENGTHS = 11, (7, 4, 1)


def randomised(norm: str = "pre", tied: str = "head", size: TransformerSize = TINY) -> Transformer:
    """Float64, in evaluation mode, every tensor at random: norms of 1 and 0 and biases of 0 would hide a mix-up."""
    torch.manual_seed(0)
    net = Transformer(VOCABULARY, VOCABULARY, size, norm, tied).double().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
            else:
                parameter.normal_(std=0.3)
    return net


def sentences() -> tuple[Tensor, Tensor]:
    """Sources of several lengths, filled up with 0, and targets."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator)
    for row, length in enumerate(LENGTHS):
        source[row, length:] = 0
    return source, torch.randint(1, VOCABULARY, (len(LENGTHS), 5), generator=generator)


def exact(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        net = getattr(transformer, name)()
    assert sum(parameter.numel() for parameter in net.parameters()) == SIZES[name]


def test_the_papers_size_by_hand():
    """Table 3's base: 6 blocks each, 512 wide, 2048 hidden, and one table of 37,000 tokens."""
    attention, mlp, norm = 4 * 512 * 513, 2048 * 513 + 512 * 2049, 2 * 512
    assert 6 * (3 * attention + 2 * mlp + 5 * norm) + 37_000 * 512 == SIZES["transformer_base"]


@pytest.mark.parametrize("tied", ["none", "head", "all"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_shapes_and_gradients(norm, tied):
    torch.manual_seed(0)
    net, (source, target) = Transformer(VOCABULARY, VOCABULARY, TINY, norm, tied), sentences()
    logits = net(source, target)
    assert logits.shape == (3, 5, VOCABULARY)
    nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_tied_tables_are_one_parameter():
    numbers = [sum(p.numel() for p in randomised(tied=tied).parameters()) for tied in ("none", "head", "all")]
    assert numbers[0] - numbers[1] == numbers[1] - numbers[2] == VOCABULARY * TINY.width
    with torch.device("meta"):  # still one after it has been given memory
        net = Transformer(VOCABULARY, VOCABULARY, TINY, tied="all")
    net = net.to_empty(device="cpu")
    assert sum(p.numel() for p in net.parameters()) == numbers[2] - 2 * 2 * TINY.width  # and no last norms


def test_logits_have_a_sensible_scale_at_first():
    """A guess that all tokens are alike likely: a loss of about log V."""
    torch.manual_seed(0)
    source, target = torch.randint(1, 1000, (4, 9)), torch.randint(1, 1000, (4, 9))
    for norm in ("pre", "post"):
        net = Transformer(1000, 1000, TransformerSize(64, 2, 4, 128), norm, "all").eval()
        loss = nn.functional.cross_entropy(net(source, target).flatten(0, 1), target.roll(1, 1).flatten()).item()
        assert loss == pytest.approx(np.log(1000), abs=1.0), norm


# --- parity


def theirs_of(ours: Transformer, size: TransformerSize, norm: str) -> nn.Transformer:
    """torch's, with the same weights. After post-norm layers it would have one more norm, which the paper has not."""
    first = norm == "pre"
    words = {"dropout": 0.0, "batch_first": True, "norm_first": first}
    layers = (
        kind(size.width, size.heads, size.hidden, **words) for kind in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    )
    norms = [nn.LayerNorm(size.width) if first else None for _ in range(2)]
    encoder = nn.TransformerEncoder(next(layers), size.depth, norms[0], enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(next(layers), size.depth, norms[1])
    theirs = nn.Transformer(size.width, size.heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True).double()
    names = renamed(ours)
    theirs.load_state_dict({name: tensor.detach() for name, tensor in names.items()})
    return theirs


def renamed(ours: Transformer, grad: bool = False) -> dict[str, Tensor]:
    """Our parameters, or their gradients, under torch's names."""

    def get(module: nn.Module) -> dict[str, Tensor]:
        return {name: p.grad if grad else p for name, p in module.named_parameters()}

    found = {}
    for stack in ("encoder", "decoder"):
        for index, block in enumerate(getattr(ours, stack)):
            own, start = get(block), f"{stack}.layers.{index}"
            names = {"attention.qkv.": "self_attn.in_proj_", "attention.proj.": "self_attn.out_proj."}
            names |= {"cross.proj.": "multihead_attn.out_proj.", "mlp.0.": "linear1.", "mlp.2.": "linear2."}
            names |= {f"correct{i}.norm.": f"norm{i}." for i in (1, 2, 3)}
            for old, new in names.items():
                found |= {f"{start}.{new}{p}": own[old + p] for p in ("weight", "bias") if old + p in own}
            if stack == "decoder":
                for p in ("weight", "bias"):
                    pair = [own[f"cross.{part}.{p}"] for part in ("query", "key_value")]
                    found[f"{start}.multihead_attn.in_proj_{p}"] = torch.cat(pair)
        found |= {f"{stack}.norm.{name}": value for name, value in get(getattr(ours, f"{stack}_norm")).items()}
    return found


def embedded(table: Tensor, tokens: Tensor) -> Tensor:
    """Section 3.4 of the paper; the places as they are, in single precision."""
    places = sinusoidal(torch.arange(tokens.shape[1]), table.shape[1])
    return table[tokens] * table.shape[1] ** 0.5 + places


def test_places_are_the_papers_sines():
    """Section 3.5, in NumPy: of the first tokens and of those of a step."""
    net, (source, _) = randomised(), sentences()
    table = net.target_embedding
    at, feature = np.arange(7)[:, None], np.arange(12)[None]
    angles = at / 10_000 ** (2 * (feature // 2) / 12)
    places = torch.from_numpy(np.where(feature % 2 == 0, np.sin(angles), np.cos(angles)))
    torch.testing.assert_close(net._embed(table, source, 0), table(source) * 12**0.5 + places, rtol=1e-6, atol=1e-6)
    exact(net._embed(table, source[:, 4:5], 4), net._embed(table, source, 0)[:, 4:5])


def assert_parity(net: Transformer, size: TransformerSize, norm: str, tied: str, tolerance: float) -> None:
    source, target = sentences()
    target_real = torch.arange(5) < torch.tensor([5, 3, 2])[:, None]
    target = target.masked_fill(~target_real, 0)
    factors = torch.randn(3, 5, VOCABULARY, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    factors = factors * target_real[..., None]  # what comes after the end is nobody's business
    logits = net(source, target)
    (logits * factors).sum().backward()

    theirs = theirs_of(net, size, norm)
    table = net.target_embedding.weight.detach().clone().requires_grad_()
    of_source = table if tied == "all" else net.source_embedding.weight.detach().clone().requires_grad_()
    head = net.head.weight.detach().clone().requires_grad_() if tied == "none" else table
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    unseen = {"src_key_padding_mask": source.eq(0), "memory_key_padding_mask": source.eq(0)}
    unseen |= {"tgt_key_padding_mask": ~target_real, "tgt_mask": causal}
    expected = theirs(embedded(of_source, source), embedded(table, target), **unseen) @ head.T
    (expected * factors).sum().backward()

    def near(one: Tensor, two: Tensor, what: str) -> None:
        scale = two.abs().max().item()
        assert scale > 0 and (one - two).abs().max().item() <= tolerance * scale, what

    near(logits * target_real[..., None], expected * target_real[..., None], "logits")
    grads = renamed(net, grad=True)
    for name, parameter in theirs.named_parameters():
        near(grads.pop(name), parameter.grad, name)
    assert grads == {}
    near(net.target_embedding.weight.grad, table.grad, "target table")
    if tied != "all":
        near(net.source_embedding.weight.grad, of_source.grad, "source table")
    if tied == "none":
        near(net.head.weight.grad, head.grad, "head")


@pytest.mark.parametrize("tied", ["none", "head", "all"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_it_is_torchs_transformer(norm, tied):
    """Logits and the gradient of every parameter, of padded batches."""
    assert_parity(randomised(norm, tied), TINY, norm, tied, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_whole_size_is_torchs_transformer(norm):
    size = TransformerSize(256, 3, 8, 512)
    torch.manual_seed(0)
    net = transformer_small(VOCABULARY, VOCABULARY, norm, "all").double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert_parity(net, size, norm, "all", 1e-11)


# --- what must not be seen


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_is_not_seen(norm):
    net, (source, target) = randomised(norm), sentences()
    mask = source.ne(0)
    logits = net(source, target)
    assert torch.equal(net(source, target, mask), logits)
    other = source.masked_fill(~mask, 7)
    exact(net(other, target, mask), logits)
    assert not torch.allclose(net(other, target), logits)
    exact(net(torch.cat([source, source.new_zeros(3, 4)], 1), target), logits)
    for row, length in enumerate(LENGTHS):
        exact(net(source[row : row + 1, :length], target[row : row + 1])[0], logits[row])


def test_every_source_token_is_seen_and_no_other_row():
    net, (source, target) = randomised(), sentences()
    logits = net(source, target)
    for at in range(LENGTHS[0]):
        other = source.clone()
        other[0, at] = source[0, at] % (VOCABULARY - 1) + 1
        changed = (net(other, target) - logits).abs().amax((1, 2))
        assert changed[0] > 1e-6 and (changed[1:] == 0).all()


def test_targets_to_come_are_not_seen():
    net, (source, target) = randomised(), sentences()
    for at in range(1, 5):
        other = target.clone()
        other[:, at] = target[:, at] % (VOCABULARY - 1) + 1
        before, after = net(source, target), net(source, other)
        assert torch.equal(before[:, :at], after[:, :at])
        assert ((before[:, at:] - after[:, at:]).abs().amax((1, 2)) > 1e-6).all()


def test_a_row_of_nothing_but_padding_is_finite():
    net, (source, target) = randomised(), sentences()
    source[1] = 0
    logits = net(source, target)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_where_it_looks():
    net, (source, target) = randomised(), sentences()
    looks = net.looks(source, target)
    assert looks.shape == (3, 2, 3, 5, 7)
    exact(looks.sum(4), torch.ones(3, 2, 3, 5, dtype=torch.float64))
    assert (looks.movedim(4, 1)[source.eq(0)] == 0).all()
    assert torch.equal(net.align(source, target), looks[:, 0].mean(1))
    # what the weights say is what the layer does: values of one source token alone, and its share is all that arrives
    cross, x = net.decoder[0].cross, torch.randn(1, 4, 12, dtype=torch.float64)
    key, value = cross.remember(torch.randn(1, 6, 12, dtype=torch.float64))
    mask = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    weights = cross.weights(x, (key, value), mask)
    expected = cross.proj((weights @ value).transpose(1, 2).flatten(2))
    exact(cross(x, (key, value), mask), expected)


# --- decoding


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_step_by_step_is_forward(norm):
    net, (source, target) = randomised(norm), sentences()
    logits, state = net(source, target), net.encode(source)
    for at in range(target.shape[1]):
        one, state = net.step(target[:, at], state)
        exact(one, logits[:, at])
        assert state.past[0][0].shape == (3, 3, at + 1, 4)


def test_a_state_can_be_reordered():
    net, (source, target) = randomised(), sentences()
    index = torch.tensor([2, 0, 0, 1])
    _, state = net.step(target[:, 0], net.encode(source))
    chosen, _ = net.step(target[index, 1], select(state, index))
    exact(chosen, net.step(target[:, 1], state)[0][index])
    assert isinstance(select(state, index), TransformerState)


def test_search_scores_are_those_of_forward():
    """The cache follows its beam: the log-probability of each sequence found, from a forward pass over it."""
    net, (source, _) = randomised(), sentences()
    first = torch.ones(3, dtype=torch.long)
    found = beam_search(net.step, net.encode(source), first, 2, 6, beams=3, alpha=0.0)
    for beam in range(3):
        tokens, lengths = found.tokens[:, beam], found.lengths[:, beam]
        said = net(source, torch.cat([first[:, None], tokens[:, :-1]], 1)).log_softmax(2)
        said = said.gather(2, tokens[..., None])[..., 0]
        expected = said.masked_fill(torch.arange(6) >= lengths[:, None], 0).sum(1)
        torch.testing.assert_close(found.scores[:, beam], expected, rtol=1e-10, atol=1e-10)
    greedy = greedy_search(net.step, net.encode(source), first, 2, 6)
    one = beam_search(net.step, net.encode(source), first, 2, 6, beams=1, alpha=0.0)
    assert torch.equal(greedy.tokens, one.tokens) and torch.equal(greedy.lengths, one.lengths)


# --- export


class Encode(nn.Module):
    def __init__(self, net: Transformer) -> None:
        super().__init__()
        self.net = net

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        state = self.net.encode(source)
        return state.mask, *(tensor for pair in state.memory for tensor in pair)


class Step(nn.Module):
    def __init__(self, net: Transformer) -> None:
        super().__init__()
        self.net = net

    def forward(self, token, mask, k1, v1, k2, v2, p1, q1, p2, q2) -> tuple[Tensor, ...]:
        logits, state = self.net.step(token, TransformerState(((k1, v1), (k2, v2)), mask, ((p1, q1), (p2, q2))))
        return logits, *(tensor for pair in state.past for tensor in pair)


BATCH, LENGTH, PAST = torch.export.Dim("batch"), torch.export.Dim("length"), torch.export.Dim("past", min=0)
STEP_DIMS = ({0: BATCH}, {0: BATCH, 1: LENGTH}, *({0: BATCH, 2: LENGTH},) * 4, *({0: BATCH, 2: PAST},) * 4)


@torch.no_grad()
def given(net: Transformer, rows: int, length: int, past: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A source, and all that a step takes after so many target tokens."""
    source = torch.randint(0, VOCABULARY, (rows, length)).sort(1, descending=True)[0]  # padding at the end
    source[:, 0] = 1
    state = net.encode(source)
    for _ in range(past):
        _, state = net.step(torch.randint(1, VOCABULARY, (rows,)), state)
    tensors = [tensor for pairs in (state.memory, state.past) for pair in pairs for tensor in pair]
    return source, (torch.randint(1, VOCABULARY, (rows,)), state.mask, *tensors)


def test_a_step_exports_for_any_batch_length_and_past():
    net = randomised()
    step = Step(net)
    exported = torch.export.export(step, given(net, 3, 7, 4)[1], dynamic_shapes=STEP_DIMS).module()
    for rows, length, past in ((2, 3, 0), (5, 12, 9)):
        _, inputs = given(net, rows, length, past)
        for one, two in zip(exported(*inputs), step(*inputs), strict=True):
            exact(one, two)


def test_the_whole_exports_for_any_batch_and_lengths():
    net, (source, target) = randomised("post", size=TransformerSize(12, 1, 3, 20)), sentences()
    dims = ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: torch.export.Dim("written")})
    exported = torch.export.export(net, (source, target), dynamic_shapes=dims).module()
    for rows, length, written in ((2, 3, 8), (5, 12, 2)):
        source, _ = given(net, rows, length, 0)
        target = torch.randint(1, VOCABULARY, (rows, written))
        exact(exported(source, target), net(source, target))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")  # torch's exporter, where two inputs share a free axis
@pytest.mark.filterwarnings("ignore:# ONNX model has different number of inputs:UserWarning")  # and where one is a tuple
def test_onnx_computes_the_same_for_any_batch_and_length(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = randomised().float()
    source, inputs = given(net, 3, 7, 4)
    for module, example, dims in ((Encode(net), (source,), ({0: BATCH, 1: LENGTH},)), (Step(net), inputs, STEP_DIMS)):
        path = tmp_path / "model.onnx"
        torch.onnx.export(module.eval(), example, path, dynamo=True, dynamic_shapes=dims, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for rows, length, past in ((2, 3, 0), (5, 12, 9), (1, 1, 1)):
            source, inputs = given(net, rows, length, past)
            tensors = (source,) if isinstance(module, Encode) else inputs
            feeds = {node.name: x.numpy() for node, x in zip(session.get_inputs(), tensors, strict=True)}
            for one, two in zip(session.run(None, feeds), module(*tensors), strict=True):
                np.testing.assert_allclose(one, two.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_vocab_size": 0}, "source_vocab_size must be at least 1, got 0"),
        ({"size": TransformerSize(10, 2, 4)}, "width must be even and a multiple of heads, 4, got 10"),
        ({"size": TransformerSize(9, 2, 3)}, "width must be even and a multiple of heads, 3, got 9"),
        ({"size": TransformerSize(8, 0, 2)}, "depth must be at least 1, got 0"),
        ({"norm": "first"}, "norm must be 'pre' or 'post', got 'first'"),
        ({"tied": "both"}, "tied must be 'none', 'head' or 'all', got 'both'"),
        ({"tied": "all", "target_vocab_size": 6}, "tied='all' needs one vocabulary, got sizes 5 and 6"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
    ids=["vocabulary", "width", "odd", "depth", "norm", "tied", "one vocabulary", "dropout"],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**{"source_vocab_size": 5, "target_vocab_size": 5, **arguments})
