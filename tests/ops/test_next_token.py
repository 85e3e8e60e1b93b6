"""Each filter against its rule in NumPy, and where it must do nothing or leave one token."""

import numpy as np
import pytest
import torch

from dlzoo.ops.next_token import draw, repetition_penalty, temperature, top_k, top_p

INF = float("inf")


def logits(rows=5, vocabulary=17, seed=0):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def only_the_best(x):
    return torch.where(x == x.amax(-1, keepdim=True), x, -INF)


@pytest.mark.parametrize("value", [0.3, 1.0, 2.5])
def test_temperature_divides(value):
    x = logits()
    np.testing.assert_allclose(temperature(x, value).numpy(), x.numpy() / np.float32(value), rtol=1e-6)


def test_no_temperature_leaves_the_best():
    x = logits()
    assert torch.equal(temperature(x, 0), only_the_best(x))
    torch.testing.assert_close(temperature(x, 0).softmax(-1), temperature(x, 1e-4).softmax(-1))  # which is the limit
    ties = torch.tensor([[1.0, 2.0, 2.0]])
    assert temperature(ties, 0).isfinite().sum() == 1


@pytest.mark.parametrize("k", [1, 2, 6, 17, 40])
def test_top_k_keeps_the_k_best(k):
    x = logits()
    expected = np.full(x.shape, -np.inf, np.float32)
    for row, values in enumerate(x.numpy()):
        best = sorted(range(17), key=lambda token: -values[token])[:k]
        expected[row, best] = values[best]
    assert np.array_equal(top_k(x, k).numpy(), expected)
    if k == 1:
        assert torch.equal(top_k(x, 1), only_the_best(x))
    if k >= 17:
        assert torch.equal(top_k(x, k), x)


@pytest.mark.parametrize("p", [0.05, 0.4, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_hold_p(p):
    x = logits()
    kept = top_p(x, p)
    for row, values in enumerate(x.double().numpy()):
        probabilities = np.exp(values) / np.exp(values).sum()
        nucleus, held = set(), 0.0
        for token in sorted(range(17), key=lambda token: -values[token]):
            nucleus.add(token)
            held += probabilities[token]
            if held >= p:
                break
        assert set(np.flatnonzero(np.isfinite(kept[row].numpy()))) == nucleus
        assert torch.equal(kept[row][list(nucleus)], x[row][list(nucleus)])


def test_top_p_at_its_ends():
    x = logits()
    assert torch.equal(top_p(x, 1.0), x)
    assert torch.equal(top_p(x, 1e-9), only_the_best(x))
    even = torch.zeros(1, 8)  # exact eighths: three quarters are six tokens, no more
    assert top_p(even, 0.75).isfinite().sum() == 6 and top_p(even, 0.76).isfinite().sum() == 7


def test_the_filters_chain():
    x = logits()
    kept = top_p(top_k(x, 5), 0.9).isfinite()
    assert (kept.sum(-1) <= 5).all() and (kept.sum(-1) >= 1).all()
    assert torch.equal(kept, top_p(top_k(x[:, None], 5), 0.9).isfinite()[:, 0])  # whatever comes before the vocabulary


def test_repetition_penalty_is_the_rule():
    x, tokens = logits(3), torch.tensor([[0, 3, 3, 9], [16, 1, 2, 2], [5, 5, 5, 5]])
    expected = x.numpy().copy()
    for row in range(3):
        for token in set(tokens[row].tolist()):
            expected[row, token] = expected[row, token] / 1.3 if expected[row, token] > 0 else expected[row, token] * 1.3
    np.testing.assert_allclose(repetition_penalty(x, tokens, 1.3).numpy(), expected, rtol=1e-6)
    assert torch.equal(repetition_penalty(x, tokens, 1.0), x)
    before, after = x.softmax(-1), repetition_penalty(x, tokens, 1.3).softmax(-1)
    assert (after.gather(1, tokens) < before.gather(1, tokens)).all()


def test_padding_is_not_a_repetition():
    x, tokens = logits(2), torch.tensor([[0, 3, 7, 7], [4, 1, 2, 7]])
    seen = torch.tensor([[True, True, False, False], [True, True, True, True]])
    found = repetition_penalty(x, tokens, 2.0, seen)
    assert torch.equal(found[:1], repetition_penalty(x[:1], tokens[:1, :2], 2.0))
    assert torch.equal(found[1:], repetition_penalty(x[1:], tokens[1:], 2.0))
    assert found[0, 7] == x[0, 7] and found[1, 7] != x[1, 7]


def test_what_is_drawn_is_as_likely_as_the_logits_say():
    x = torch.tensor([[0.0, 1.0, -INF, 2.0]]).expand(20_000, 4)
    drawn = draw(x, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert shares[2] == 0
    torch.testing.assert_close(shares, x[0].softmax(-1), atol=0.015, rtol=0)
    assert torch.equal(drawn, draw(x, torch.Generator().manual_seed(0)))
    assert torch.equal(draw(temperature(logits(), 0)), logits().argmax(-1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: temperature(x, -0.1), "temperature must be at least 0, got -0.1"),
        (lambda x: top_k(x, 0), "k must be at least 1, got 0"),
        (lambda x: top_p(x, 0.0), "p must be above 0 and at most 1, got 0.0"),
        (lambda x: top_p(x, 1.1), "p must be above 0 and at most 1, got 1.1"),
        (lambda x: repetition_penalty(x, torch.zeros(5, 1, dtype=torch.long), 0), "penalty must be above 0, got 0"),
    ],
    ids=["temperature", "top_k", "top_p of 0", "top_p above 1", "penalty"],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(logits())
