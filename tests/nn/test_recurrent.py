"""RNN, LSTM and GRU: the equations, torch's layers and the fused kernel are one function."""

import copy
import math

import pytest
import torch
from torch import nn

from dlzoo.nn.recurrent import GRU, LSTM, RNN, Recurrent

KINDS = {"rnn": (RNN, nn.RNN), "lstm": (LSTM, nn.LSTM), "gru": (GRU, nn.GRU)}
STACKS = {"one layer": (1, False), "three layers": (3, False), "both directions": (1, True), "two layers, both": (2, True)}
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
FEATURES, HIDDEN, BATCH, STEPS = 3, 5, 4, 7


def pair(kind, layers=1, bidirectional=False, dropout=0.0):
    """Ours, and torch's with the same weights, in float64."""
    torch.manual_seed(0)
    ours, theirs = KINDS[kind]
    theirs = theirs(FEATURES, HIDDEN, layers, batch_first=True, bidirectional=bidirectional, dropout=dropout).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.7)
    net = ours(FEATURES, HIDDEN, layers, dropout, bidirectional).double()
    net.kernel.load_state_dict(theirs.state_dict())
    return net, theirs


def inputs(net, batch=BATCH):
    x = torch.randn(batch, STEPS, FEATURES, dtype=torch.float64, requires_grad=True)
    return x, tuple(torch.randn_like(part, requires_grad=True) for part in net.zeros(batch))


def near(one, two, what=""):
    scale = two.abs().max()
    assert scale > 0, what
    assert (one - two).abs().max() <= 1e-10 * scale, what


def gradients(y, last, leaves):
    """Of a sum in which every output and every part of the last state counts with its own weight."""
    generator = torch.Generator().manual_seed(3)
    pulls = [torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for tensor in (y, *last)]
    loss = sum((tensor * pull).sum() for tensor, pull in zip((y, *last), pulls, strict=True))
    return torch.autograd.grad(loss, leaves)


def their_call(theirs, x, state):
    y, last = theirs(x, state if isinstance(theirs, nn.LSTM) else state[0])
    return y, last if isinstance(last, tuple) else (last,)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_equations_and_kernel_are_torchs_layer(kind, stack):
    net, theirs = pair(kind, *STACKS[stack])
    x, state = inputs(net)
    y, last = their_call(theirs, x, state)
    expected = gradients(y, last, [x, *state, *theirs.parameters()])
    for path in (net.equations, net.forward):
        ours, end = path(x, state)
        assert ours.shape == (BATCH, STEPS, net.width) and len(end) == net.PARTS
        near(ours, y, "outputs")
        for one, two in zip(end, last, strict=True):
            near(one, two, "last state")
        for one, two in zip(gradients(ours, end, [x, *state, *net.parameters()]), expected, strict=True):
            near(one, two, "gradient")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_torchs_cell(kind):
    net, _ = pair(kind, layers=2)
    theirs = CELLS[kind](HIDDEN, HIDDEN).double()
    for parameter, weight in zip(theirs.parameters(), net.weights(layer=1), strict=True):
        parameter.data = weight.detach().clone()
    x, *state = (torch.randn(BATCH, HIDDEN, dtype=torch.float64) for _ in range(1 + net.PARTS))
    expected = theirs(x, tuple(state) if kind == "lstm" else state[0])
    for one, two in zip(net.step(x, tuple(state), layer=1), expected if kind == "lstm" else [expected], strict=True):
        near(one, two)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both directions"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_as_if_it_was_not_there(kind, bidirectional):
    net, _ = pair(kind, 2, bidirectional)
    x, state = inputs(net)
    lengths = torch.tensor([4, 7, 1, 5])
    y, last = net(x, state, lengths)
    ours, end = net.equations(x, state, lengths)
    for one, two in zip((ours, *end), (y, *last), strict=True):
        near(one, two)
    leaves = [x, *state, *net.parameters()]
    for one, two in zip(gradients(ours, end, leaves), gradients(y, last, leaves), strict=True):
        near(one, two)
    for n, length in enumerate(lengths):
        alone, end = net(x[n : n + 1, :length], tuple(part[:, n : n + 1] for part in state))
        near(y[n : n + 1, :length], alone)
        assert not y[n, length:].any()
        for one, two in zip(last, end, strict=True):
            near(one[:, n : n + 1], two)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_padding_changes_nothing(kind):
    net, _ = pair(kind, 2, True)
    x, _ = inputs(net)
    lengths = torch.tensor([4, 7, 1, 5])
    other = x.detach().clone()
    other[0, 4:], other[2, 1:], other[3, 5:] = 100, -100, 100
    for path in (net.forward, net.equations):
        assert torch.equal(path(x, None, lengths)[0], path(other, None, lengths)[0])
        assert not torch.equal(path(x, None, lengths + (lengths < 7))[0], path(other, None, lengths + (lengths < 7))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_lies_between_the_layers(kind):
    """Drawn from one seed it is torch's, mask for mask; the last output has none."""
    net, theirs = pair(kind, layers=3, dropout=0.5)
    x, state = inputs(net)
    torch.manual_seed(1)
    y, last = their_call(theirs.train(), x, state)
    for path in (net.train().equations, net.forward):
        torch.manual_seed(1)
        ours, end = path(x, state)
        near(ours, y)
        near(end[0], last[0])
    assert (y != 0).all() and not torch.allclose(net.eval()(x, state)[0], y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_carries_all_there_is_to_know(kind):
    net, _ = pair(kind, 2)
    x, state = inputs(net)
    whole, end = net(x, state)
    first, middle = net(x[:, :3], state)
    second, last = net(x[:, 3:], middle)
    near(torch.cat([first, second], 1), whole)
    for one, two in zip(last, end, strict=True):
        near(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_at_zero(kind):
    net, _ = pair(kind, 2, True)
    x, _ = inputs(net)
    for path in (net.forward, net.equations):
        assert torch.equal(path(x)[0], path(x, net.zeros(BATCH))[0])


def test_forward_reads_no_future_and_backward_no_past():
    net, _ = pair("lstm", bidirectional=True)
    x, _ = inputs(net)
    y, _ = net(x)
    (grad,) = torch.autograd.grad(y[:, 3, :HIDDEN].sum(), x, retain_graph=True)
    assert grad[:, :4].all() and not grad[:, 4:].any()
    (grad,) = torch.autograd.grad(y[:, 3, HIDDEN:].sum(), x)
    assert grad[:, 3:].all() and not grad[:, :3].any()


def test_the_forget_bias_is_how_a_memory_fades():
    """Nothing in, nothing written: what is left after T steps is sigmoid(bias) ** T."""
    net = LSTM(FEATURES, HIDDEN, layers=2, bidirectional=True, forget_bias=2.0)
    with torch.no_grad():
        for layer in range(2):
            for backward in (False, True):
                w, u, b_w, b_u = net.weights(layer, backward)
                assert torch.equal(b_w.chunk(4)[1] + b_u.chunk(4)[1], torch.full((HIDDEN,), 2.0))
                w.zero_(), u.zero_()
                b_w.chunk(4)[2].zero_(), b_u.chunk(4)[2].zero_()  # nothing to write
    state = tuple(torch.ones_like(part) for part in net.zeros(1))
    _, (_, c) = net(torch.zeros(1, STEPS, FEATURES), state)
    assert torch.allclose(c, torch.full_like(c, (1 / (1 + math.exp(-2))) ** STEPS))


def test_the_forget_bias_touches_nothing_else():
    torch.manual_seed(0)
    ours = LSTM(FEATURES, HIDDEN)
    torch.manual_seed(0)
    theirs = LSTM(FEATURES, HIDDEN, forget_bias=None)
    torch.manual_seed(0)
    reference = nn.LSTM(FEATURES, HIDDEN)
    forget = slice(HIDDEN, 2 * HIDDEN)
    for one, two, three in zip(ours.weights(), theirs.weights(), reference.parameters(), strict=True):
        assert torch.equal(two, three)
        changed = (one != two).nonzero()
        assert changed.numel() == (HIDDEN if one.ndim == 1 else 0)
        assert all(forget.start <= row < forget.stop for row in changed.flatten().tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_and_a_saved_one_are_the_same(kind, tmp_path):
    from safetensors.torch import load_model, save_model

    net, _ = pair(kind, 2, True)
    x, _ = inputs(net)
    save_model(net, tmp_path / "net.safetensors")
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not torch.equal(other(x)[0], net(x)[0])
    load_model(other, tmp_path / "net.safetensors")
    assert torch.equal(other(x)[0], net(x)[0]) and torch.equal(other.equations(x)[0], net.equations(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_goes_on_from_its_own_state(kind):
    net = KINDS[kind][0](FEATURES, HIDDEN, 2)
    x = torch.randn(BATCH, STEPS, FEATURES)
    whole, _ = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        first, state = net(x[:, :3])
        second, _ = net(x[:, 3:], state)
        slow, _ = net.equations(x)
    for y in (torch.cat([first, second], 1), slow):
        assert (y.float() - whole).abs().max() < 0.03


class _Fixed(nn.Module):
    """As it is exported: tensors in, tensors out."""

    def __init__(self, net: Recurrent) -> None:
        super().__init__()
        self.net = net

    def forward(self, x, lengths, *state):
        y, last = self.net(x, state, lengths)
        return y, *last


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")  # torch's exporter, where two inputs share a free axis
@pytest.mark.filterwarnings("ignore:# ONNX model has different number of inputs:UserWarning")  # and where one is a tuple
@pytest.mark.parametrize("padded", [False, True], ids=["forwards", "both directions, padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_takes_and_gives_a_state_for_any_batch_and_length(kind, padded, tmp_path):
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    net, _ = pair(kind, 2, bidirectional=padded)
    net = _Fixed(net.float()).eval()
    example = torch.randn(2, STEPS, FEATURES), torch.tensor([3, 7]) if padded else None, *net.net.zeros(2)
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    shapes = {
        "x": {0: batch, 1: steps},
        "lengths": {0: batch} if padded else None,
        "state": tuple({1: batch} for _ in example[2:]),
    }
    with torch.no_grad():
        torch.onnx.export(net, example, tmp_path / "net.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False)
        kinds = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
        assert kinds.count(kind.upper()) == 2 and "Loop" not in kinds, "one node for each layer"
        session = runtime.InferenceSession(tmp_path / "net.onnx")
        for count, length in ((1, 1), (3, 11)):
            lengths = torch.tensor([length, 4, 1])[:count] if padded else None
            state = (torch.randn_like(part) for part in net.net.zeros(count))
            given = torch.randn(count, length, FEATURES), lengths, *state
            names = [node.name for node in session.get_inputs()]
            arrays = [tensor.numpy() for tensor in given if tensor is not None]
            found = session.run(None, dict(zip(names, arrays, strict=True)))
            for one, two in zip(found, net(*given), strict=True):
                assert (torch.from_numpy(one) - two).abs().max() <= 1e-5 * two.abs().max()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.5}, "dropout must be from 0 to 1, got 1.5"),
    ],
    ids=["features", "hidden", "layers", "dropout"],
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        GRU(**{"features": 2, "hidden": 3, **words})
