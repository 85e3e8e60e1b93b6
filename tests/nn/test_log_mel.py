"""The log-mel layer: equal to torchaudio's in outputs and gradients, whatever the window; any length."""

import math

import pytest
import torch

from dlzoo.data.waveforms import torchaudio
from dlzoo.nn.log_mel import LogMel

FORMS = [(16_000, 480, 160, 40), (8_000, 240, 80, 40), (16_000, 512, 128, 64), (22_050, 401, 100, 32), (8_000, 256, 256, 1)]


@pytest.fixture
def double():
    """All that is made within it is float64, torchaudio's window and bands included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _waves(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.3


@pytest.mark.parametrize(("rate", "window", "hop", "bands"), FORMS)
def test_it_is_torchaudios_in_outputs_and_gradients(double, rate, window, hop, bands):
    theirs = torchaudio().transforms.MelSpectrogram(rate, n_fft=window, hop_length=hop, n_mels=bands)
    ours = LogMel(rate, window, hop, bands)
    x, y = (_waves(2, 2, 2 * window + 77).requires_grad_() for _ in range(2))
    found, expected = ours(x), (theirs(y) + ours.floor).log()
    assert found.shape == (2, 2, bands, 1 + x.shape[2] // hop)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    weights = _waves(*found.shape, seed=1)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert (x.grad - y.grad).abs().max() <= 1e-5 * y.grad.abs().max() and y.grad.any()


def test_in_fp32_it_is_near_enough(double):
    x = _waves(1, 1, 4000) * torch.linspace(0, 1, 4000)
    exact = LogMel(8_000, 240, 80, 40)(x)
    found = LogMel(8_000, 240, 80, 40).float()(x.float())
    assert (found - exact).abs().max() < 2e-3  # of values from log(floor) = -11.5 to about 4


def test_a_tone_sounds_in_its_band():
    layer = LogMel(8_000, 240, 80, 40)
    for hertz in (300, 1000, 2500):
        tone = 0.5 * (2 * math.pi * hertz * torch.arange(4000) / 8000).sin()
        band = int(layer(tone[None, None])[0, 0, :, 25].argmax())
        centre = (band + 1) / 41 * 2595 * math.log10(1 + 4000 / 700)  # in mel
        assert 700 * (10 ** (centre / 2595) - 1) == pytest.approx(hertz, rel=0.1)


def test_silence_is_the_floor_and_twice_as_loud_is_six_decibels():
    layer = LogMel(8_000, 240, 80, 40, floor=1e-5)
    assert torch.allclose(layer(torch.zeros(1, 1, 800)), torch.tensor(math.log(1e-5)))
    x = _waves(1, 1, 2000).float()
    assert torch.allclose(layer(2 * x) - layer(x), torch.tensor(math.log(4)), atol=1e-3)


def test_autocast_leaves_it_exact():
    layer, x = LogMel(8_000, 240, 80, 40), _waves(1, 1, 800).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(x)
    assert inside.dtype == torch.float32 and torch.equal(inside, layer(x))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"sample_rate": 0}, "sample_rate"),
        ({"hop": 0}, "hop"),
        ({"floor": 0.0}, "floor"),
        ({"window": 1}, "window"),
        ({"bands": 0}, "bands"),
        ({"bands": 200}, "hold no frequency"),
    ],
)
def test_what_it_refuses(words, match):
    with pytest.raises(ValueError, match=match):
        LogMel(**{"sample_rate": 8_000, "window": 240, "hop": 80, "bands": 40, **words})
