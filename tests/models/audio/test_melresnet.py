"""res8 to res26: the sizes of Tang and Lin, and the same numbers as their section 3 written down a second time."""

import pytest
import torch
import torch.nn.functional as F

from dlzoo.models.audio import melresnet as zoo_file
from dlzoo.models.audio.melresnet import MelFrontEnd, MelResNet

# parameters; the paper's (table 1); layers behind the first, pooling, dilation
SIZES = {
    "melresnet8": (110_307, "110 K", 6, (4, 3), False),
    "melresnet8_narrow": (19_905, "19.9 K", 6, (4, 3), False),
    "melresnet15": (237_882, "238 K", 13, None, True),
    "melresnet15_narrow": (42_648, "42.6 K", 13, None, True),
    "melresnet26": (438_357, "438 K", 24, (2, 2), False),
    "melresnet26_narrow": (78_387, "78.4 K", 24, (2, 2), False),
}
CASES = [name if name in ("melresnet8_narrow",) else pytest.param(name, marks=pytest.mark.slow) for name in SIZES]


def _reference(name, state, spectrogram):
    """Section 3 by torch's functions: normalised bands, a first layer, then pairs; batch statistics, no scale and no shift."""
    _, _, layers, pool, dilated = SIZES[name]

    def norm(x, dims):
        return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()

    x = norm(spectrogram, (0, 1, 3))  # of each band
    x = F.relu(F.conv2d(x, state["stem.weight"], padding=1))
    if pool:
        x = F.avg_pool2d(x, pool)
    kept, layer = x, 0
    while layer < layers:
        spread = 2 ** (layer // 3) if dilated else 1
        x = F.relu(F.conv2d(x, state[f"convs.{layer}.weight"], padding=spread, dilation=spread))
        if layer % 2 == 1:
            x = kept = x + kept
        x = norm(x, (0, 2, 3))
        layer += 1
    return F.linear(x.mean((2, 3)), state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_section_3(name):
    torch.manual_seed(0)
    net = getattr(zoo_file, name)(num_classes=3, sample_rate=8_000).double()
    x = torch.randn(2, 1, 2_000, dtype=torch.float64) * 0.3
    other = {key: tensor.detach().clone().requires_grad_() for key, tensor in net.named_parameters()}
    y, expected = net(x), _reference(name, other, net.front.log_mel(x))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-9)
    pull = torch.randn_like(y)
    (y * pull).sum().backward()
    (expected * pull).sum().backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad - other[key].grad).abs().max() <= 1e-5 * other[key].grad.abs().max(), key


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name):
    parameters, paper, layers, *_ = SIZES[name]
    with torch.device("cpu"):
        net = getattr(zoo_file, name)()
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert len(net.convs) == layers and f"paper: {paper}" in getattr(zoo_file, name).__doc__
    digits = float(paper.split()[0])
    assert parameters / 1e3 == pytest.approx(digits, abs=0.5 if digits > 100 else 0.06)


def test_a_second_is_101_columns_of_40_bands():
    for rate in (8_000, 16_000):
        front = MelFrontEnd(rate)
        assert front(torch.randn(2, 1, rate)).shape == (2, 1, 40, 101)


def test_every_band_is_normalised_in_training():
    x = MelFrontEnd(8_000)(torch.randn(4, 1, 8_000) * 0.1)
    assert x.mean((0, 1, 3)).abs().max() < 1e-3 and (x.var((0, 1, 3)) - 1).abs().max() < 0.01


def test_stripes_are_blotted_out_in_training_alone():
    net = zoo_file.melresnet8_narrow(sample_rate=8_000, mask_bands=8, mask_frames=16)
    x = torch.randn(2, 1, 4_000)
    torch.manual_seed(0)
    assert (net.front(x) == 0).any()
    net.eval()
    assert not (net.front(x) == 0).any() and torch.equal(net(x), net(x))


def test_res15_sees_most_of_a_second():
    """The receptive field of the last layer, by the gradient: 1 + 2 (1 + 1 + 1 + 1 + 2 + ...) columns."""
    net = MelResNet(torch.nn.Identity(), 13, 4, dilated=True).eval()
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.1)  # no relu is closed
    x = torch.ones(1, 1, 3, 301, requires_grad=True)
    net.features(x)[0, :, 1, 150].sum().backward()
    seen = x.grad[0, 0].abs().amax(0) > 0
    assert seen.sum() == 1 + 2 * (1 + sum(2 ** (layer // 3) for layer in range(13)))


@pytest.mark.parametrize(
    ("words", "match"),
    [({"layers": 0}, "layers"), ({"width": 0}, "width"), ({"num_classes": 0}, "num_classes"), ({"pool": (0, 1)}, "pool")],
)
def test_what_it_refuses(words, match):
    with pytest.raises(ValueError, match=match):
        MelResNet(**{"front": torch.nn.Identity(), "layers": 2, **words})
