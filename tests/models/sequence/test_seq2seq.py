"""Translation with attention, against its equations written out a second time."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.models.sequence import seq2seq
from dlzoo.models.sequence.seq2seq import AdditiveScore, DotScore, Encoder, GeneralScore, Seq2Seq, Seq2SeqSize
from dlzoo.ops.search import beam_search, greedy_search

SIZES = {"seq2seq_additive": 14_320_912, "seq2seq_dot": 14_977_808, "seq2seq_general": 15_239_952}
TINY = Seq2SeqSize(embedding=5, width=6, layers=2)
SOURCE_VOCABULARY, TARGET_VOCABULARY, LENGTHS = 11, 9, (7, 4, 1)
KINDS = [
    pytest.param(score, cell, id=f"{score}-{cell}") for score in ("additive", "dot", "general") for cell in ("gru", "lstm")
]


def randomised(score: str = "additive", cell: str = "gru", size: Seq2SeqSize = TINY) -> Seq2Seq:
    """Float64, in evaluation mode, every tensor at random: biases of 0 would hide a mix-up."""
    torch.manual_seed(0)
    net = Seq2Seq(SOURCE_VOCABULARY, TARGET_VOCABULARY, score, cell, size).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.5)
    return net


def sentences() -> tuple[Tensor, Tensor]:
    """Sources of several lengths, filled up with 0, and targets."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1, SOURCE_VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator)
    for row, length in enumerate(LENGTHS):
        source[row, length:] = 0
    return source, torch.randint(1, TARGET_VOCABULARY, (len(LENGTHS), 5), generator=generator)


def assert_near(ours: Tensor, theirs: Tensor, what: str) -> None:
    scale = theirs.abs().max().item()
    assert scale > 0, what
    assert (ours - theirs).abs().max().item() <= 1e-10 * scale, what


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        net = getattr(seq2seq, name)()
    assert sum(parameter.numel() for parameter in net.parameters()) == SIZES[name]


def test_the_parameters_by_hand():
    """GRUs with E = 256, D = 512, V = 10,000: what each part of the figure has."""
    embeddings, halves, cell = 2 * 10_000 * 256, 2 * 3 * 256 * (256 + 256 + 2), 3 * 512 * (256 + 512 + 512 + 2)
    bridge, combine, head = 512 * 513, 1024 * 512, 513 * 10_000
    score = 512 * 512 + 512 * 513 + 512
    assert embeddings + halves + cell + bridge + combine + head + score == SIZES["seq2seq_additive"]


@pytest.mark.parametrize(("score", "cell"), KINDS)
def test_shapes_and_gradients(score, cell):
    torch.manual_seed(0)
    net, (source, target) = Seq2Seq(SOURCE_VOCABULARY, TARGET_VOCABULARY, score, cell, TINY), sentences()
    logits = net(source, target)
    assert logits.shape == (3, 5, TARGET_VOCABULARY)
    logits.square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


# --- against the equations


def test_scores_are_their_formulas():
    torch.manual_seed(0)
    state, memory = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    additive, general, dot = AdditiveScore(6).double(), GeneralScore(6).double(), DotScore()
    w, u, b, v = (p.detach().numpy() for p in (additive.query.weight, *additive.key.parameters(), additive.energy.weight))
    for row in range(2):
        for at in range(4):
            s, h = state[row].numpy(), memory[row, at].numpy()
            formulas = {
                additive: v[0] @ np.tanh(w @ s + u @ h + b),
                general: s @ general.key.weight.detach().numpy() @ h,
                dot: s @ h,
            }
            for score, expected in formulas.items():
                assert score(state, score.keys(memory))[row, at].item() == pytest.approx(expected, rel=1e-12)


def gru(x: Tensor, h: list[Tensor], wi: Tensor, wh: Tensor, bi: Tensor, bh: Tensor) -> list[Tensor]:
    """Cho et al. 2014, with torch's place of the reset gate."""
    (ri, zi, ni), (rh, zh, nh) = (wi @ x + bi).chunk(3), (wh @ h[0] + bh).chunk(3)
    z = 1 / (1 + torch.exp(-(zi + zh)))
    return [(1 - z) * torch.tanh(ni + nh / (1 + torch.exp(-(ri + rh)))) + z * h[0]]


def lstm(x: Tensor, h: list[Tensor], wi: Tensor, wh: Tensor, bi: Tensor, bh: Tensor) -> list[Tensor]:
    i, f, g, o = (wi @ x + bi + wh @ h[0] + bh).chunk(4)
    c = h[1] / (1 + torch.exp(-f)) + torch.tanh(g) / (1 + torch.exp(-i))
    return [torch.tanh(c) / (1 + torch.exp(-o)), c]


def written_out(net: Seq2Seq, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and weights of one sentence without padding, one vector at a time."""
    p = dict(net.named_parameters())
    cell, tensors = (gru, 1) if net.tensors == 1 else (lstm, 2)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    x = [p["encoder.embedding.weight"][token] for token in source]
    for layer in range(2):
        both = []
        for side, order in (("from_left", x), ("from_right", x[::-1])):
            h, out = [x[0].new_zeros(3) for _ in range(tensors)], []
            for word in order:
                h = cell(word, h, *(p[f"encoder.layers.{layer}.{side}.{name}_l0"] for name in names))
                out.append(h[0])
            both.append(out if side == "from_left" else out[::-1])
        x = [torch.cat(pair) for pair in zip(*both, strict=True)]
    start = torch.tanh(p["bridge.weight"] @ torch.cat([x[-1][:3], x[0][3:]]) + p["bridge.bias"]).split(6)
    states = [list(start[layer * tensors : (layer + 1) * tensors]) for layer in range(2)]
    feed, logits, looked = x[0].new_zeros(6), [], []
    for token in target:
        y = torch.cat([p["embedding.weight"][token], feed])
        for layer in range(2):
            states[layer] = cell(y, states[layer], *(p[f"cells.{layer}.{name}"] for name in names))
            y = states[layer][0]
        if isinstance(net.score, AdditiveScore):
            hidden = [torch.tanh(p["score.query.weight"] @ y + p["score.key.weight"] @ h + p["score.key.bias"]) for h in x]
            scores = [(p["score.energy.weight"] @ h)[0] for h in hidden]
        else:
            scores = [y @ (p["score.key.weight"] @ h if "score.key.weight" in p else h) for h in x]
        shares = torch.stack(scores).exp()
        shares = shares / shares.sum()
        context = sum(share * h for share, h in zip(shares, x, strict=True))
        feed = torch.tanh(p["combine.weight"] @ torch.cat([context, y]))
        logits.append(p["head.weight"] @ feed + p["head.bias"])
        looked.append(shares)
    return torch.stack(logits), torch.stack(looked)


@pytest.mark.parametrize(("score", "cell"), KINDS)
def test_it_is_the_equations_row_by_row(score, cell):
    """Of a padded batch, each row is as the sentence alone; outputs, weights and gradients."""
    net, (source, target) = randomised(score, cell), sentences()
    target = target[:, :3]
    logits, looked = net(source, target), net.align(source, target)
    factors = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = torch.autograd.grad((logits * factors).sum(), list(net.parameters()))
    total = 0.0
    for row, length in enumerate(LENGTHS):
        expected, weights = written_out(net, source[row, :length], target[row])
        assert_near(logits[row], expected, f"logits of row {row}")
        assert_near(looked[row, :, :length], weights, f"weights of row {row}")
        total = total + (expected * factors[row]).sum()
    theirs = torch.autograd.grad(total, list(net.parameters()))
    for (name, _), one, two in zip(net.named_parameters(), ours, theirs, strict=True):
        assert_near(one, two, name)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_encoder_is_torchs_bidirectional_layers(cell):
    """Memory and gradients, on rows without padding one by one."""
    torch.manual_seed(0)
    ours = Encoder(SOURCE_VOCABULARY, cell, TINY, 0.0).double()
    theirs = (nn.GRU if cell == "gru" else nn.LSTM)(5, 3, num_layers=2, bidirectional=True, batch_first=True).double()
    pairs = {}
    for index, layer in enumerate(ours.layers):
        for side, suffix in ((layer.from_left, ""), (layer.from_right, "_reverse")):
            pairs |= {f"{name[:-1]}{index}{suffix}": parameter for name, parameter in side.named_parameters()}
    theirs.load_state_dict({name: parameter.detach() for name, parameter in pairs.items()})
    source, _ = sentences()
    memory, ends = ours(source, source.ne(0))
    factors = torch.randn(memory.shape, dtype=torch.float64)
    total = 0.0
    for row, length in enumerate(LENGTHS):
        expected = theirs(ours.embedding(source[row : row + 1, :length]))[0][0]
        assert_near(memory[row, :length], expected, f"row {row}")
        assert (memory[row, length:] == 0).all()
        assert torch.equal(ends[row], torch.cat([memory[row, length - 1, :3], memory[row, 0, 3:]]))
        total = total + (expected * factors[row, :length]).sum()
    total.backward()
    grads = torch.autograd.grad((memory * factors).sum(), [pairs[name] for name, _ in theirs.named_parameters()])
    for (name, parameter), grad in zip(theirs.named_parameters(), grads, strict=True):
        assert_near(grad, parameter.grad, name)


# --- what must not be seen


@pytest.mark.parametrize(("score", "cell"), KINDS)
def test_padding_is_not_seen(score, cell):
    net, (source, target) = randomised(score, cell), sentences()
    mask = source.ne(0)
    logits = net(source, target)
    assert torch.equal(net(source, target, mask), logits)
    other = source.masked_fill(~mask, 7)
    assert torch.equal(net(other, target, mask), logits) and not torch.allclose(net(other, target), logits)
    assert (net.align(other, target, mask)[~mask[:, None].expand(-1, 5, -1)] == 0).all()
    wider = torch.cat([source, source.new_zeros(3, 4)], 1)
    torch.testing.assert_close(net(wider, target), logits, rtol=1e-12, atol=1e-12)


def test_every_source_token_is_seen():
    net, (source, target) = randomised(), sentences()
    logits = net(source, target)
    for at in range(LENGTHS[0]):
        other = source.clone()
        other[0, at] = source[0, at] % (SOURCE_VOCABULARY - 1) + 1
        changed = (net(other, target) - logits).abs().amax((1, 2))
        assert changed[0] > 1e-6 and (changed[1:] == 0).all()


def test_targets_to_come_are_not_seen():
    net, (source, target) = randomised(), sentences()
    other = target.clone()
    other[:, 3:] = 1 + target[:, 3:] % (TARGET_VOCABULARY - 1)
    before, after = net(source, target), net(source, other)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3:], after[:, 3:])


def test_a_row_of_nothing_but_padding_is_finite():
    net, (source, target) = randomised(), sentences()
    source[1] = 0
    logits = net(source, target)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_input_feeding():
    """What the decoder looked at reaches its next step."""
    net, (source, target) = randomised(), sentences()
    _, state = net.step(target[:, 0], net.encode(source))
    logits, _ = net.step(target[:, 1], state)
    without, _ = net.step(target[:, 1], state._replace(feed=torch.zeros_like(state.feed)))
    assert (logits - without).abs().max() > 1e-3


# --- decoding


@pytest.mark.parametrize(("score", "cell"), KINDS)
def test_step_by_step_is_forward(score, cell):
    net, (source, target) = randomised(score, cell), sentences()
    logits, looked, state = net(source, target), net.align(source, target), net.encode(source)
    for at in range(target.shape[1]):
        one, state = net.step(target[:, at], state)
        torch.testing.assert_close(one, logits[:, at], rtol=1e-12, atol=1e-12)
        assert torch.equal(state.weights, looked[:, at])
    torch.testing.assert_close(looked.sum(2), torch.ones(3, 5, dtype=torch.float64), rtol=1e-12, atol=0)


def test_search_scores_are_those_of_forward():
    """The state follows its beam: the log-probability of each sequence found, from a forward pass over it."""
    net, (source, _) = randomised(cell="lstm"), sentences()
    first = torch.ones(3, dtype=torch.long)
    found = beam_search(net.step, net.encode(source), first, 2, 6, beams=3, alpha=0.0)
    for beam in range(3):
        tokens, lengths = found.tokens[:, beam], found.lengths[:, beam]
        said = net(source, torch.cat([first[:, None], tokens[:, :-1]], 1)).log_softmax(2)
        said = said.gather(2, tokens[..., None])[..., 0]
        expected = said.masked_fill(torch.arange(6) >= lengths[:, None], 0).sum(1)
        torch.testing.assert_close(found.scores[:, beam], expected, rtol=1e-10, atol=1e-10)
    greedy = greedy_search(net.step, net.encode(source), first, 2, 6)
    assert (found.scores[:, 0] >= greedy.scores[:, 0] - 1e-12).all()


# --- export


class Encode(nn.Module):
    def __init__(self, net: Seq2Seq) -> None:
        super().__init__()
        self.net = net

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.encode(source))


class Step(nn.Module):
    def __init__(self, net: Seq2Seq) -> None:
        super().__init__()
        self.net = net

    def forward(self, token, memory, keys, mask, hidden, feed, weights):
        state = seq2seq.Seq2SeqState(memory, keys, mask, hidden, feed, weights)
        logits, state = self.net.step(token, state)
        return logits, state.hidden, state.feed, state.weights


BATCH, LENGTH = torch.export.Dim("batch"), torch.export.Dim("length")
STATE_DIMS = ({0: BATCH, 1: LENGTH},) * 3 + ({0: BATCH}, {0: BATCH}, {0: BATCH, 1: LENGTH})


@torch.no_grad()
def states(net: Seq2Seq, rows: int, length: int) -> tuple[Tensor, Tensor, seq2seq.Seq2SeqState]:
    source = torch.randint(0, SOURCE_VOCABULARY, (rows, length)).sort(1, descending=True)[0]  # padding at the end
    source[:, 0] = 1
    return source, torch.randint(0, TARGET_VOCABULARY, (rows,)), net.encode(source)


def stepped(net: Seq2Seq, token: Tensor, state: seq2seq.Seq2SeqState) -> tuple[Tensor, ...]:
    logits, after = net.step(token, state)
    return logits, after.hidden, after.feed, after.weights


def test_a_step_exports_for_any_batch_and_length():
    net = randomised()
    _, token, state = states(net, 3, 7)
    exported = torch.export.export(Step(net), (token, *state), dynamic_shapes=({0: BATCH}, *STATE_DIMS)).module()
    for rows, length in ((2, 3), (5, 12)):
        _, token, state = states(net, rows, length)
        for one, two in zip(exported(token, *state), stepped(net, token, state), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore"
)  # the exporter's own, and of nn.GRU's and nn.LSTM's flat weights, harmless: pytorch#163809
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_onnx_computes_the_same_for_any_batch_and_length(cell, tmp_path):
    """torch 2.11 fixes the length of a recurrent layer in the file, without a word."""
    onnxruntime = pytest.importorskip("onnxruntime")
    net = randomised(cell=cell).float()
    source, token, state = states(net, 3, 7)
    for module, inputs, dims in (
        (Encode(net), (source,), ({0: BATCH, 1: LENGTH},)),
        (Step(net), (token, *state), ({0: BATCH}, *STATE_DIMS)),
    ):
        path = tmp_path / "model.onnx"
        torch.onnx.export(module, inputs, path, dynamo=True, dynamic_shapes=dims, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for rows, length in ((2, 3), (5, 12), (1, 1)):
            source, token, state = states(net, rows, length)
            given = (source,) if isinstance(module, Encode) else (token, *state)
            feeds = {node.name: x.numpy() for node, x in zip(session.get_inputs(), given, strict=True)}
            for one, two in zip(session.run(None, feeds), module(*given), strict=True):
                np.testing.assert_allclose(one, two.detach().numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_vocab_size": 0}, "target_vocab_size must be at least 1, got 0"),
        ({"size": Seq2SeqSize(8, 7)}, "width must be even, half for each direction, got 7"),
        ({"size": Seq2SeqSize(8, 8, 0)}, "layers must be at least 1, got 0"),
        ({"score": "cosine"}, "score must be 'additive', 'dot' or 'general', got 'cosine'"),
        ({"cell": "rnn"}, "cell must be 'gru' or 'lstm', got 'rnn'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
    ids=["vocabulary", "width", "layers", "score", "cell", "dropout"],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Seq2Seq(**{"source_vocab_size": 5, "target_vocab_size": 5, **arguments})
