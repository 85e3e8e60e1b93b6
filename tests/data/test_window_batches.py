"""Batches of windows: each start once, in an order that seed, epoch and index alone decide."""

import pytest
import torch

from dlzoo.data.window_batches import WindowBatches
from dlzoo.errors import ConfigError

ROWS, HISTORY, HORIZON = 51, 7, 3


def _batches(starts=range(HISTORY, ROWS - HORIZON + 1), **options):
    rows = torch.arange(ROWS, dtype=torch.float32)
    features, targets = torch.stack([rows, -rows], 1), 100 + rows[:, None]
    return WindowBatches(
        features, targets, torch.tensor(list(starts)), **{"history": HISTORY, "horizon": HORIZON, "batch_size": 8, **options}
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_window_is_the_rows_before_and_after_its_start(shuffle):
    seen = []
    for x, y, at in _batches(shuffle=shuffle):
        assert x.shape == (len(at), HISTORY, 2) and y.shape == (len(at), HORIZON, 1)
        for window, truth, start in zip(x, y, at.tolist(), strict=True):
            assert window[:, 0].tolist() == list(range(start - HISTORY, start)) and torch.equal(window[:, 1], -window[:, 0])
            assert truth[:, 0].tolist() == list(range(100 + start, 100 + start + HORIZON))
        seen += at.tolist()
    assert sorted(seen) == list(range(HISTORY, ROWS - HORIZON + 1)) and (seen == sorted(seen)) is not shuffle


def _starts(loader):
    return torch.cat([at for _, _, at in loader]).tolist()


def test_the_order_depends_on_seed_and_epoch_alone():
    one, other = _batches(shuffle=True, seed=3), _batches(shuffle=True, seed=3, batch_size=5)
    first, second = _starts(one), _starts(one)
    assert first != second and _starts(other) == first and _starts(other) == second
    assert _starts(_batches(shuffle=True, seed=4)) != first


def test_it_goes_on_in_the_middle_of_an_epoch():
    loader = _batches(shuffle=True)
    loader.sampler.set_epoch(2)
    passed = iter(loader)
    for _ in range(3):
        next(passed)
    again = _batches(shuffle=True)
    again.load_state_dict(loader.state_dict())
    rest, straight = list(again), list(passed)
    assert len(rest) == len(straight) == len(loader) - 3
    assert all(torch.equal(a, b) for one, other in zip(rest, straight, strict=True) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shuffle", [False, True])
def test_two_ranks_share_what_one_sees(shuffle):
    whole = list(_batches(shuffle=shuffle))
    shares = [list(_batches(shuffle=shuffle, rank=rank, world_size=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(torch.equal(one, torch.cat(pair)) for one, *pair in zip(batch, *parts, strict=True))
    with pytest.raises(ConfigError, match="batch size"):
        _batches(batch_size=3, shuffle=True, world_size=2)


@pytest.mark.parametrize("starts", [[HISTORY - 1], [ROWS - HORIZON + 1]], ids=["before", "after"])
def test_a_window_that_reaches_past_an_end_is_refused(starts):
    with pytest.raises(ValueError, match="must lie in the 51 rows"):
        _batches(starts)
    with pytest.raises(ValueError, match="equally many"):
        WindowBatches(torch.zeros(3, 1), torch.zeros(4, 1), torch.tensor([1]), history=1, horizon=1, batch_size=1)
