"""A recurrent encoder with a direct head: torch's layers in a row, and what each forecast may depend on."""

import pytest
import torch
from torch import nn

from dlzoo.models.sequence.forecaster import Forecaster, forecaster_lstm
from dlzoo.nn.recurrent import GRU, LSTM, RNN

KINDS = {"lstm": (LSTM, nn.LSTM), "gru": (GRU, nn.GRU), "rnn": (RNN, nn.RNN)}
BATCH, STEPS, FEATURES, HORIZON, TARGETS, WIDTH = 3, 7, 4, 5, 2, 6


def tiny(kind="lstm", layers=2, bidirectional=False, **words):
    torch.manual_seed(0)
    net = Forecaster(KINDS[kind][0](FEATURES, WIDTH, layers, 0.0, bidirectional), HORIZON, TARGETS, **words).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net.eval()


def window():
    return torch.randn(BATCH, STEPS, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def near(one, two, what=""):
    scale = two.abs().max()
    assert scale > 0, what
    assert (one - two).abs().max() <= 1e-10 * scale, what


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "both directions"])
@pytest.mark.parametrize("kind", KINDS)
def test_is_torchs_layers_in_a_row(kind, bidirectional):
    net = tiny(kind, bidirectional=bidirectional)
    layers = KINDS[kind][1](FEATURES, WIDTH, 2, bidirectional=bidirectional, batch_first=True).double()
    head = nn.Linear(WIDTH * (1 + bidirectional), HORIZON * TARGETS).double()
    layers.load_state_dict(net.recurrent.kernel.state_dict())
    head.load_state_dict(net.head.state_dict())
    outputs, _ = layers(window())
    # the end of the way there, and of the way back
    last = torch.cat([outputs[:, -1, :WIDTH], outputs[:, 0, WIDTH:]], 1)
    expected = head(last).view(BATCH, HORIZON, TARGETS)
    found = net(window())
    assert found.shape == (BATCH, HORIZON, TARGETS)
    near(found, expected)
    pull = torch.randn_like(found)
    (found * pull).sum().backward()
    (expected * pull).sum().backward()
    theirs = [*layers.parameters(), *head.parameters()]
    for (name, parameter), other in zip(net.named_parameters(), theirs, strict=True):
        near(parameter.grad, other.grad, name)


def test_size():
    net = forecaster_lstm()
    assert sum(parameter.numel() for parameter in net.parameters()) == 18_712
    wider = sum(parameter.numel() for parameter in forecaster_lstm(features=8).parameters())
    assert wider == 18_712 + 7 * 256
    assert "18,712 parameters, 256 more" in forecaster_lstm.__doc__


def test_every_forecast_depends_on_every_value_of_the_past():
    net, x = tiny(), window().requires_grad_()
    for step in range(HORIZON):
        for target in range(TARGETS):
            (gradient,) = torch.autograd.grad(net(x)[:, step, target].sum(), x)
            assert gradient.all()


def test_each_step_has_a_head_of_its_own():
    net, x = tiny(), window()
    before = net(x)
    with torch.no_grad():
        net.head.bias[3 * TARGETS + 1] += 1
    change = (net(x) - before).detach()
    assert torch.allclose(change[:, 3, 1], torch.ones_like(change[:, 3, 1]))
    change[:, 3, 1] = 0
    assert not change.any()


def test_a_network_that_says_nothing_is_persistence():
    net, x = tiny(persistence=True), window()
    assert torch.allclose(net(x) - x[:, -1:, :TARGETS], tiny()(x))
    nn.init.zeros_(net.head.weight), nn.init.zeros_(net.head.bias)
    assert torch.equal(net(x), x[:, -1:, :TARGETS].expand(-1, HORIZON, -1))


def test_dropout_is_in_front_of_the_head():
    torch.manual_seed(0)
    net = tiny(dropout=0.5)
    assert torch.equal(net(window()), net(window()))
    seen = []
    net.head.register_forward_pre_hook(lambda _, given: seen.append((given[0] == 0).float().mean().item()))
    net.train()(window().repeat(60, 1, 1))
    assert seen == [pytest.approx(0.5, abs=0.05)]
    assert forecaster_lstm(layers=3, dropout=0.25).recurrent.kernel.dropout == 0.25


def test_the_forget_bias_reaches_the_layers():
    for parameter in forecaster_lstm(forget_bias=3.0).recurrent.weights()[2:3]:
        assert parameter.chunk(4)[1].unique().tolist() == [3.0]


def test_any_length_goes_in():
    net = tiny()
    for steps in (1, 30):
        assert net(torch.randn(2, steps, FEATURES, dtype=torch.float64)).shape == (2, HORIZON, TARGETS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"targets": 3, "features": 2}, "targets must be among the features, 2, got 3"),
        ({"dropout": -0.1}, "dropout must be from 0 to 1, got -0.1"),
    ],
    ids=["horizon", "no targets", "more targets than features", "dropout"],
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        forecaster_lstm(**words)
