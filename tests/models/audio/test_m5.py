"""M3 to M34-res: the paper's sizes, and the same numbers as the table of the paper written down a second time."""

import re

import pytest
import torch
import torch.nn.functional as F

from dlzoo.models.audio import m5 as zoo_file
from dlzoo.models.audio.m5 import ConvBlock, PoolByFour, ResidualBlock, WaveformCNN

# layers with weights; parameters; those that Remy's Keras version states, which has a bias in front of each batch norm
SIZES = {
    "m3": (3, 220_682, 221_194),
    "m5": (5, 558_090, 559_114),
    "m11": (11, 1_784_202, 1_786_442),
    "m18": (18, 3_679_882, 3_683_786),
    "m34_res": (34, 3_978_442, 3_984_154),
}
PAPER = {
    "m3": "0.2",
    "m5": "0.5",
    "m11": "1.8",
    "m18": "3.7",
    "m34_res": "4",
}  # millions, table 1: M5's is cut off, not rounded
# table 1, from top to bottom: (channels, repetitions), and "pool"; "r" are residual blocks
TABLE = {
    "m3": [(256, 1), "pool", (256, 1), "pool"],
    "m5": [(128, 1), "pool", (128, 1), "pool", (256, 1), "pool", (512, 1), "pool"],
    "m11": [(64, 1), "pool", (64, 2), "pool", (128, 2), "pool", (256, 3), "pool", (512, 2)],
    "m18": [(64, 1), "pool", (64, 4), "pool", (128, 4), "pool", (256, 4), "pool", (512, 4)],
    "m34_res": [(48, 1), "pool", ("r", 48, 3), "pool", ("r", 96, 4), "pool", ("r", 192, 6), "pool", ("r", 384, 3)],
}
SLOW = [name if name in ("m3", "m5") else pytest.param(name, marks=pytest.mark.slow) for name in SIZES]


def _reference(name, state, x):
    """The table by torch's functions, in training mode, taking the weights in their order."""
    weights = iter([tensor for key, tensor in state.items() if "running" not in key and "num_batches" not in key])

    def norm(x):
        gamma, beta = next(weights), next(weights)
        mean, var = x.mean((0, 2), keepdim=True), x.var((0, 2), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * gamma[:, None] + beta[:, None]

    def conv(x, stride=1):
        kernel = next(weights)
        return F.conv1d(x, kernel, stride=stride, padding=38 if stride == 4 else 1)

    def residual(x):
        y = norm(conv(F.relu(norm(conv(x)))))
        if y.shape[1] != x.shape[1]:
            x = torch.stack([x, x], 2).flatten(1, 2)  # each channel twice, side by side
        return F.relu(norm(x + y))

    for row in TABLE[name]:
        if row == "pool":
            x = F.pad(x, (0, -x.shape[2] % 4), value=-torch.inf).unflatten(2, (-1, 4)).amax(3)
        elif row[0] == "r":
            for _ in range(row[2]):
                x = residual(x)
        else:
            for _ in range(row[1]):
                x = F.relu(norm(conv(x, stride=4 if x.shape[1] == 1 else 1)))
    weight, bias = next(weights), next(weights)
    assert next(weights, None) is None
    return x.mean(2) @ weight.T + bias


@pytest.mark.parametrize("name", SLOW)
def test_outputs_and_gradients_are_those_of_the_table(name):
    torch.manual_seed(0)
    net = getattr(zoo_file, name)(num_classes=3).double()
    for parameter in net.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    x = torch.randn(2, 1, 2_610, dtype=torch.float64)
    other = {
        key: tensor.detach().clone().requires_grad_("weight" in key or "bias" in key)
        for key, tensor in net.state_dict().items()
    }
    y, expected = net(x), _reference(name, other, x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-9)
    pull = torch.randn_like(y)
    (y * pull).sum().backward()
    (expected * pull).sum().backward()
    for key, parameter in net.named_parameters():
        theirs = other[key].grad
        if name == "m34_res" and re.fullmatch(r"stages\.[1-4]\.\d+\.norm\.bias", key):
            assert max(theirs.abs().max(), parameter.grad.abs().max()) < 1e-10  # the norm of the sum takes a shift out again
        else:
            assert (parameter.grad - theirs).abs().max() <= 1e-5 * theirs.abs().max(), key


@pytest.mark.parametrize("name", SIZES)
def test_layers_and_parameters(name):
    layers, parameters, keras = SIZES[name]
    with torch.device("meta"):
        net = getattr(zoo_file, name)()
    convs = [module for module in net.modules() if isinstance(module, torch.nn.Conv1d)]
    assert len(convs) + 1 == layers
    found = sum(parameter.numel() for parameter in net.parameters())
    assert found == parameters
    assert found + sum(conv.out_channels for conv in convs) == keras
    millions = float(PAPER[name])
    assert millions - 0.05 <= found / 1e6 < millions + 0.1
    assert PAPER[name] in getattr(zoo_file, name).__doc__


@pytest.mark.parametrize(("name", "columns"), [("m3", 500), ("m5", 32), ("m11", 32), ("m18", 32), ("m34_res", 32)])
def test_the_paper_s_lengths(name, columns):
    """32,000 samples, four seconds at 8 kHz, are 8000, 2000, 500, 125, 32 columns."""
    with torch.device("meta"):
        net = getattr(zoo_file, name)()
        assert net.stages[0](torch.empty(1, 1, 32_000)).shape[2] == 2_000
        assert net.features(torch.empty(1, 1, 32_000)).shape[2] == columns


def test_any_length_goes_in():
    net = WaveformCNN((4, 4, 8), (1, 1), num_classes=3).eval()
    for samples in (4, 100, 1_001, 8_000):
        assert net(torch.randn(2, 1, samples)).shape == (2, 3)


def test_the_first_layer_hears_ten_milliseconds_and_shortens_by_sixteen():
    first = ConvBlock(1, 8, kernel_size=80, stride=4)
    assert first.conv.kernel_size[0] / 8_000 == 0.01
    assert PoolByFour()(first(torch.randn(1, 1, 1_600))).shape == (1, 8, 100)


def test_a_pool_takes_what_is_left_at_the_end():
    x = torch.tensor([[[1.0, 3.0, 2.0, 0.0, -1.0, -5.0]]])
    assert PoolByFour()(x).tolist() == [[[3.0, -1.0]]]


def test_a_block_that_adds_nothing_passes_its_input_on():
    block = ResidualBlock(2, 4).eval()
    torch.nn.init.zeros_(block.norm.weight)
    x = torch.rand(1, 2, 9)
    expected = x[:, [0, 0, 1, 1]] / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"in_channels": 0}, "in_channels"),
        ({"blocks": (1, 0)}, "blocks"),
        ({"widths": (4, 4)}, "widths must name"),
        ({"widths": (0, 4, 4)}, "widths"),
        ({"widths": (4, 6, 8), "residual": True}, "multiple of in_channels, 4, got 6"),
    ],
)
def test_what_it_refuses(words, match):
    with pytest.raises(ValueError, match=match):
        WaveformCNN(**{"widths": (4, 4, 8), "blocks": (1, 1), **words})
