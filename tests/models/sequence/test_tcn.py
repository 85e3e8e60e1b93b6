"""Temporal convolutions: a second writing by torch's layers, a third one in NumPy, and what each step sees and must not see."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from dlzoo.models.sequence.tcn import TCN, CausalConv, TCNForecaster, TemporalBlock, tcn

FEATURES, STEPS, BATCH = 3, 20, 2


def tiny(widths=(4, 4, 5), kernel_size=3, dropout=0.0):
    torch.manual_seed(0)
    net = TCN(FEATURES, widths, kernel_size, dropout).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.7)
    return net


def series(steps=STEPS):
    return torch.randn(BATCH, steps, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def near(one, two, what=""):
    scale = two.abs().max()
    assert scale > 0, what
    assert (one - two).abs().max() <= 1e-10 * scale, what


class _Level(nn.Module):
    """A level as others write it: padded on both sides, and what looks ahead is cut off at the end."""

    def __init__(self, block: TemporalBlock, dilation: int) -> None:
        super().__init__()
        convs = []
        for ours in (block.conv1, block.conv2):
            out_channels, in_channels, size = ours.direction.shape
            conv = nn.Conv1d(in_channels, out_channels, size, padding=(size - 1) * dilation, dilation=dilation).double()
            conv.bias.data = ours.bias.detach().clone()
            conv = weight_norm(conv)
            conv.parametrizations.weight.original0.data = ours.length.detach().clone()
            conv.parametrizations.weight.original1.data = ours.direction.detach().clone()
            convs.append(conv)
        self.convs = nn.ModuleList(convs)
        self.shortcut = nn.Sequential()
        if isinstance(block.shortcut, nn.Conv1d):
            self.shortcut.append(nn.Conv1d(*block.shortcut.weight.shape[1::-1], 1).double())
            self.shortcut[0].load_state_dict(block.shortcut.state_dict())

    def forward(self, x):
        y = x
        for conv in self.convs:
            y = F.relu(conv(y)[:, :, : x.shape[2]])
        return F.relu(y + self.shortcut(x))


def test_outputs_and_gradients_are_those_of_torchs_weight_norm():
    net, x = tiny(), series()
    theirs = nn.Sequential(*(_Level(block, 2**level) for level, block in enumerate(net.blocks)))
    y, expected = net(x), theirs(x.transpose(1, 2)).transpose(1, 2)
    assert y.shape == (BATCH, STEPS, 5)
    near(y, expected)
    pull = torch.randn_like(y)
    (y * pull).sum().backward()
    (expected * pull).sum().backward()
    for level, (block, other) in enumerate(zip(net.blocks, theirs, strict=True)):
        for ours, conv in zip((block.conv1, block.conv2), other.convs, strict=True):
            near(ours.length.grad, conv.parametrizations.weight.original0.grad, f"length {level}")
            near(ours.direction.grad, conv.parametrizations.weight.original1.grad, f"direction {level}")
            near(ours.bias.grad, conv.bias.grad, f"bias {level}")
        if other.shortcut:
            near(block.shortcut.weight.grad, other.shortcut[0].weight.grad, f"shortcut {level}")
            near(block.shortcut.bias.grad, other.shortcut[0].bias.grad, f"shortcut {level}")


def test_a_causal_convolution_is_a_sum_over_the_past():
    torch.manual_seed(0)
    conv = CausalConv(2, 3, kernel_size=3, dilation=4).double()
    nn.init.normal_(conv.length), nn.init.normal_(conv.bias)
    x = torch.randn(1, 2, 15, dtype=torch.float64)
    direction, length = conv.direction.detach().numpy(), conv.length.detach().numpy()
    expected = np.zeros((3, 15))
    for t in range(15):
        for channel in range(3):
            filter_ = direction[channel] / np.sqrt((direction[channel] ** 2).sum()) * length[channel, 0, 0]
            past = [x[0, :, t - (2 - tap) * 4].numpy() if t >= (2 - tap) * 4 else np.zeros(2) for tap in range(3)]
            expected[channel, t] = sum(filter_[:, tap] @ past[tap] for tap in range(3)) + conv.bias[channel].item()
    near(conv(x)[0], torch.from_numpy(expected))


@pytest.mark.parametrize(("levels", "kernel_size"), [(1, 2), (1, 3), (2, 4), (3, 2), (3, 3)], ids=str)
def test_the_receptive_field_is_what_the_gradient_says(levels, kernel_size):
    """The furthest step that the formula allows is seen, and the one before it is not at all."""
    net = tiny((8,) * levels, kernel_size)
    field = net.receptive_field
    assert field == 1 + 2 * sum((kernel_size - 1) * 2**level for level in range(levels))
    x = series(field + 6).requires_grad_()
    for t in (field + 5, field + 1):
        (gradient,) = torch.autograd.grad(net(x)[:, t].sum(), x)
        seen = gradient.abs().sum((0, 2)) > 0
        assert seen[t - field + 1]
        assert not seen[: t - field + 1].any() and not seen[t + 1 :].any()


def test_no_output_sees_a_later_step():
    net, x = tiny(), series()
    other = x.clone()
    other[:, 11:] = 50 * torch.randn_like(other[:, 11:])
    one, two = net(x), net(other)
    assert torch.equal(one[:, :11], two[:, :11])
    assert (one[:, 11:] != two[:, 11:]).any(2).all()


def test_it_moves_with_the_series():
    """Beyond the edge of zeros at the beginning, a step's answer depends on what it sees, not on where it is."""
    net, x = tiny(), series(60)
    near(net(x[:, 5:])[:, net.receptive_field - 1 :], net(x)[:, 5 + net.receptive_field - 1 :])


def test_only_the_direction_of_a_direction_counts():
    conv, x = CausalConv(2, 3, 3, 1).double(), torch.randn(1, 2, 9, dtype=torch.float64)
    before = conv(x)
    with torch.no_grad():
        conv.direction *= torch.tensor([0.1, 1, 7])[:, None, None]
    near(conv(x), before)
    near(conv.weight.flatten(1).norm(dim=1), conv.length.flatten())


def test_weights_begin_as_he_has_them():
    torch.manual_seed(0)
    conv = CausalConv(40, 60, 3, 1)
    assert torch.allclose(conv.weight, conv.direction)
    assert conv.weight.std().item() == pytest.approx((2 / 120) ** 0.5, rel=0.05)


def test_a_block_that_adds_nothing_passes_its_input_on():
    block = TemporalBlock(4, 4, 3, 2)
    nn.init.zeros_(block.conv2.length)
    x = torch.rand(BATCH, 4, 9)
    assert torch.equal(block(x), x)


def test_dropout_takes_whole_channels():
    torch.manual_seed(0)
    net = tiny((200,), dropout=0.5)
    nn.init.zeros_(net.blocks[0].shortcut.weight), nn.init.zeros_(net.blocks[0].shortcut.bias)
    nn.init.ones_(net.blocks[0].conv2.bias)
    dead = (net.train()(series()) == 0).all(1)
    assert dead.float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert (net.eval()(series()) == 0).all(1).float().mean() < 0.1


# --- forecasts


def test_a_forecast_is_made_of_the_last_step():
    torch.manual_seed(0)
    net, x = TCNForecaster(tiny(), horizon=4, targets=2).double(), series()
    y = net(x)
    assert y.shape == (BATCH, 4, 2)
    last = net.encoder(x)[:, -1]
    for step in range(4):
        for target in range(2):
            row = step * 2 + target
            near(y[:, step, target], last @ net.head.weight[row] + net.head.bias[row])


def test_a_network_that_says_nothing_is_persistence():
    net, x = TCNForecaster(tiny(), horizon=4, targets=2, persistence=True).double(), series()
    nn.init.zeros_(net.head.weight), nn.init.zeros_(net.head.bias)
    assert torch.equal(net(x), x[:, -1:, :2].expand(-1, 4, -1))


def test_size_and_sight():
    net = tcn()
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert parameters == 29_240 and f"{parameters:,} parameters, 128 more" in tcn.__doc__
    assert sum(parameter.numel() for parameter in tcn(features=8).parameters()) == parameters + 7 * 128
    assert net.encoder.receptive_field == 125 and "sees 125 steps" in tcn.__doc__


def test_exports_for_any_batch_and_length():
    net, x = TCNForecaster(tiny(), 4, 2, persistence=True).double().eval(), series()
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("steps")},)
    with torch.no_grad():
        exported = torch.export.export(net, (x,), dynamic_shapes=shapes).module()
        for count, steps in ((1, 3), (5, 31)):
            x = torch.randn(count, steps, FEATURES, dtype=torch.float64)
            near(exported(x), net(x))


def test_is_saved_and_copied_whole(tmp_path):
    from safetensors.torch import load_model, save_model

    net, other, x = tiny(), TCN(FEATURES, (4, 4, 5)).double().eval(), series()
    assert not torch.equal(other(x), net(x))
    save_model(net, tmp_path / "net.safetensors")
    load_model(other, tmp_path / "net.safetensors")
    assert torch.equal(other(x), net(x))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"levels": 0}, "levels must be at least 1, got 0"),
        ({"width": 0}, "widths must be at least 1, got 0"),
        ({"kernel_size": 1}, "kernel_size must be at least 2, or no step sees another, got 1"),
        ({"dropout": 2.0}, "dropout must be from 0 to 1, got 2.0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"targets": 3, "features": 2}, "targets must be among the features, 2, got 3"),
    ],
    ids=["features", "levels", "width", "kernel", "dropout", "horizon", "no targets", "more targets than features"],
)
def test_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        tcn(**words)
