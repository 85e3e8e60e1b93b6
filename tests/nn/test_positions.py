"""Each kind of position by its formula, and by what it is for."""

import numpy as np
import pytest
import torch

from dlzoo.nn.attention import attention_weights
from dlzoo.nn.positions import LearnedPositions, Rotary, SinusoidalPositions, alibi, alibi_slopes, rotate


def test_learned_positions_are_rows_and_learn():
    layer = LearnedPositions(7, 4)
    places = torch.tensor([[0, 3], [6, 3]])
    assert torch.equal(layer(places), layer.weight[places]) and layer(torch.arange(5)).shape == (5, 4)
    layer(places).sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1, 0, 0, 2, 0, 0, 1]


def test_sinusoidal_is_the_formula():
    width = 6
    expected = np.zeros((9, width))
    for place in range(9):
        for i in range(width // 2):
            angle = place / 10_000 ** (2 * i / width)
            expected[place, 2 * i], expected[place, 2 * i + 1] = np.sin(angle), np.cos(angle)
    layer = SinusoidalPositions(width)
    np.testing.assert_allclose(layer(torch.arange(9)).numpy(), expected, atol=1e-6)
    assert list(layer.state_dict()) == []
    places = torch.tensor([[2, 8], [5, 0]])
    np.testing.assert_allclose(layer(places).numpy(), expected[places.numpy()], atol=1e-6)


def test_sinusoidal_products_know_the_distance_alone():
    vectors = SinusoidalPositions(16)(torch.arange(40)).double()
    products = vectors @ vectors.T
    for distance in (0, 3, 11):
        assert products.diagonal(distance).std() < 1e-5
    assert (products.diagonal() - 8).abs().max() < 1e-5  # sin^2 + cos^2, for each pair
    assert products.diagonal(3).mean() < 7.9


def test_rotary_is_the_formula():
    """A pair of features is a complex number, and its turn a product."""
    torch.manual_seed(0)
    d, places = 8, torch.tensor([0, 1, 5, 30])
    x = torch.randn(2, 3, 4, d, dtype=torch.float64)
    pairs = x[..., : d // 2].numpy() + 1j * x[..., d // 2 :].numpy()
    angles = places.numpy()[:, None] / 500.0 ** (2 * np.arange(d // 2) / d)
    turned = pairs * np.exp(1j * angles)
    expected = np.concatenate([turned.real, turned.imag], -1)
    np.testing.assert_allclose(rotate(x, Rotary(d, base=500.0)(places)).numpy(), expected, atol=2e-6)


def test_rotary_divides_as_llama_does():
    """1 / base^e in float32, then times the place: base^-e is another number in the last bit, and place 4,095 shows it."""
    exponents = (np.arange(0, 64, 2) / np.float32(64)).astype(np.float32)
    for base in (10_000.0, 500_000.0):
        turns = torch.arange(4096).float()[:, None] * (1 / base ** torch.from_numpy(exponents))
        cos, sin = Rotary(64, base)(torch.arange(4096))
        assert torch.equal(cos[:, :32], turns.cos()) and torch.equal(sin[:, 32:], turns.sin())


def test_rotary_scores_know_the_distance_alone():
    torch.manual_seed(0)
    q, k = (torch.randn(1, 2, 1, 8, dtype=torch.float64).expand(1, 2, 20, 8) for _ in range(2))
    turn = Rotary(8)(torch.arange(20))
    scores = rotate(q, turn) @ rotate(k, turn).transpose(2, 3)
    for distance in (-7, 0, 4):
        assert scores.diagonal(distance, 2, 3).std(-1).max() < 1e-5
    assert scores.diagonal(4, 2, 3).std() > 0 and (scores[..., 0, 1:5] - scores[..., :1, 0]).abs().min() > 1e-4
    torch.testing.assert_close(rotate(q, turn).norm(dim=-1), q.norm(dim=-1), atol=1e-6, rtol=1e-6)  # a turn keeps lengths


def test_rotary_of_rows_at_different_places():
    torch.manual_seed(0)
    x, places, rotary = torch.randn(2, 3, 4, 6), torch.tensor([[0, 1, 2, 3], [9, 3, 5, 1]]), Rotary(6)
    together = rotate(x, rotary(places))
    for row in range(2):
        assert torch.equal(together[row], rotate(x[row : row + 1], rotary(places[row]))[0])
    assert torch.equal(together[0, :, 0], x[0, :, 0])  # place 0 is not turned
    assert rotate(x.bfloat16(), rotary(places)).dtype == torch.bfloat16


def test_alibi_is_the_formula():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]  # the paper's example
    bias = alibi(alibi_slopes(2), 3, 5)
    assert bias.shape == (2, 3, 5)
    for head, slope in enumerate((2.0**-4, 2.0**-8)):
        for t in range(3):
            for s in range(5):
                assert bias[head, t, s] == -slope * (t + 2 - s)


def test_alibi_of_heads_that_are_no_power_of_two():
    """Those of four, then the first and the third of eight."""
    assert alibi_slopes(6).tolist() == [2.0**-i for i in (2, 4, 6, 8, 1, 3)]
    assert alibi_slopes(1).tolist() == [2.0**-8]
    assert alibi_slopes(3).tolist() == [2.0**-i for i in (4, 8, 2)]
    assert len(set(alibi_slopes(25).tolist())) == 25


def test_alibi_weights_do_not_change_when_all_move():
    torch.manual_seed(0)
    q, k = (torch.randn(1, 4, 1, 8).expand(1, 4, 12, 8) for _ in range(2))
    slopes = alibi_slopes(4)
    short = attention_weights(q[:, :, :6], k[:, :, :6], alibi(slopes, 6, 6), causal=True)
    last = attention_weights(q[:, :, :3], k[:, :, :6], alibi(slopes, 3, 6), causal=True)
    torch.testing.assert_close(last, short[:, :, 3:])
    assert (short[:, :, 5].diff() > 0).all()  # equal keys: the nearer, the more
    ratios = short[:, :, 5, 1:] / short[:, :, 5, :-1]
    torch.testing.assert_close(ratios, slopes.exp()[None, :, None].expand_as(ratios))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Rotary(5), "width must be even and at least 2, got 5"),
        (lambda: SinusoidalPositions(0), "width must be even and at least 2, got 0"),
        (lambda: LearnedPositions(0, 4), "length must be at least 1, got 0"),
        (lambda: alibi_slopes(0), "heads must be at least 1, got 0"),
    ],
    ids=["rotary", "sinusoidal", "learned", "alibi"],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
