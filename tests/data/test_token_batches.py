"""Batches of windows: their order depends on seed, epoch and index alone, and each token is predicted as often as it says."""

import numpy as np
import pytest
import torch

from dlzoo.data.token_batches import NOTHING, TokenBatches, compact
from dlzoo.data.token_files import open_tokens, write_tokens
from dlzoo.errors import ConfigError

COUNT, CONTEXT = 103, 8  # tokens are their own places


def _batches(count=COUNT, **options):
    return TokenBatches(torch.arange(count), **{"context": CONTEXT, "batch_size": 4, **options})


def _all(loader):
    """The inputs and targets of a pass."""
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def test_a_target_is_the_next_token():
    for shuffle in (False, True):
        x, y = _all(_batches(shuffle=shuffle))
        assert x.dtype == y.dtype == torch.int64 and x.shape == y.shape and x.shape[1] == CONTEXT
        assert torch.equal(y[y != NOTHING], x[y != NOTHING] + 1)
        assert torch.equal(x[:, 1:][y[:, 1:] != NOTHING], x[:, :-1][y[:, 1:] != NOTHING] + 1)


@pytest.mark.parametrize("count", [2, 8, 9, 10, 96, 97, 98, 103])
def test_in_evaluation_every_token_is_predicted_once_and_in_order(count):
    loader = _batches(count)
    for _ in range(2):
        _, y = _all(loader)
        assert y[y != NOTHING].tolist() == list(range(1, count))
    assert len(loader) == -(-loader.windows // 4)


def test_what_reaches_past_the_end_is_not_seen_by_the_targets():
    x, y = _all(_batches(COUNT))
    assert (y == NOTHING).sum() == 13 * CONTEXT - (COUNT - 1) and (y[:-1] != NOTHING).all()
    assert x.max() == COUNT - 1


@pytest.mark.parametrize("count", [9, 15, 16, 17, 24, 103, 104])
def test_a_training_pass_predicts_no_token_twice_and_passes_differ(count):
    loader = _batches(count, shuffle=True)
    seen = []
    for epoch in range(99):
        starts = loader.starts(epoch)
        assert len(starts) == loader.windows and starts.min() >= 0 and starts.max() + CONTEXT < count
        assert (starts.sort().values.diff() == CONTEXT).all()
        seen.append(starts.min().item())
    # every offset comes: over the passes each token stands at every place of a window
    offsets = count - loader.windows * CONTEXT
    assert offsets < 2 * CONTEXT and set(seen) == set(range(offsets))


def test_over_the_passes_every_token_but_the_first_is_predicted():
    loader = _batches(shuffle=True)
    seen = torch.cat([_all(loader)[1].flatten() for _ in range(99)])
    assert seen.unique().tolist() == list(range(1, COUNT))


@pytest.mark.parametrize("size", [3, 5, 12, 30])
def test_short_epochs_are_parts_of_the_passes(size):
    whole, parts = _batches(shuffle=True, seed=3), _batches(shuffle=True, seed=3, epoch_size=size)
    assert whole.windows == 11 and len(parts.starts(0)) == size
    straight = torch.cat([whole.starts(epoch) for epoch in range(30)])
    pieces = torch.cat([parts.starts(epoch) for epoch in range(8)])
    assert torch.equal(pieces, straight[: 8 * size])
    assert len(parts) == size // 4 + (size % 4 > 0)


def test_the_order_depends_on_seed_and_epoch_alone():
    one, other = _batches(shuffle=True, seed=3), _batches(shuffle=True, seed=3, batch_size=2)
    other.sampler.set_epoch(5)
    x, _ = _all(other)
    assert torch.equal(x[:, 0], one.starts(5)) and not torch.equal(one.starts(5), one.starts(6))
    assert not torch.equal(one.starts(0), _batches(shuffle=True, seed=4).starts(0))


@pytest.mark.parametrize("shuffle", [False, True], ids=["evaluation", "training"])
def test_two_ranks_share_what_one_sees(shuffle):
    options = {"shuffle": shuffle, "batch_size": 6 if shuffle else 5}
    whole = list(_batches(**options))
    shares = [list(_batches(**options, rank=rank, world_size=2)) for rank in range(2)]
    assert all(len(share) == len(whole) for share in shares)
    for batch, one, two in zip(whole, *shares, strict=True):
        assert torch.equal(batch[0], torch.cat([one[0], two[0]])) and torch.equal(batch[1], torch.cat([one[1], two[1]]))
    with pytest.raises(ConfigError, match="batch size"):
        _batches(batch_size=3, shuffle=True, world_size=2)


@pytest.mark.parametrize("size", [None, 9])
def test_it_goes_on_in_the_middle_of_an_epoch(size):
    options = {"shuffle": True, "batch_size": 2, "epoch_size": size}
    loader = _batches(**options)
    loader.sampler.set_epoch(2)
    passed = iter(loader)
    for _ in range(3):
        next(passed)
    state = loader.state_dict()
    assert state == {"epoch": 2, "batches": 3}
    again = _batches(**options)
    again.load_state_dict(state)
    rest, straight = list(again), list(passed)
    assert len(rest) == len(straight) > 0
    assert all(torch.equal(one[0], other[0]) for one, other in zip(rest, straight, strict=True))
    following, straight = list(again), list(loader)  # the next epoch
    assert all(torch.equal(one[0], other[0]) for one, other in zip(following, straight, strict=True))


@pytest.mark.parametrize("vocab_size", [200, 70_000])
def test_a_mapped_file_gives_the_same_batches(tmp_path, vocab_size):
    tokens = np.random.default_rng(0).integers(0, vocab_size, 300)
    write_tokens(tmp_path / "a.tokens", [tokens], vocab_size)
    mapped = open_tokens(tmp_path / "a.tokens", vocab_size)
    for options in ({"shuffle": True, "drop_last": True}, {}):
        sources = (mapped, compact(tokens, vocab_size))
        one, other = (list(TokenBatches(source, context=CONTEXT, batch_size=4, **options)) for source in sources)
        assert len(one) == len(other) > 5
        for (x, y), (x2, y2) in zip(one, other, strict=True):
            assert torch.equal(x, x2) and torch.equal(y, y2) and x.dtype == x2.dtype == torch.int64


@pytest.mark.parametrize(
    ("vocab_size", "kind"), [(256, torch.uint8), (257, torch.int16), (32_768, torch.int16), (32_769, torch.int32)]
)
def test_tokens_in_memory_take_few_bytes_and_lose_none(vocab_size, kind):
    tokens = compact(np.array([0, vocab_size - 1]), vocab_size)
    assert tokens.dtype == kind and tokens.long().tolist() == [0, vocab_size - 1]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"tokens": torch.zeros(3, 4)}, r"shape \(N,\)"),
        ({"context": 0}, "at least 1"),
        ({"tokens": torch.zeros(8), "shuffle": True}, "at least 9 tokens, got 8"),
        ({"tokens": torch.zeros(1)}, "at least 2 tokens, got 1"),
    ],
    ids=["shape", "context", "training", "evaluation"],
)
def test_what_does_not_fit_is_refused(words, match):
    with pytest.raises(ValueError, match=match):
        TokenBatches(**{"tokens": torch.zeros(100), "context": CONTEXT, "batch_size": 4, **words})
