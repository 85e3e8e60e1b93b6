"""The room for keys and values: what goes in comes out, each row at its own place."""

import pytest
import torch

from dlzoo.nn.kv_cache import KVCache

CPU = torch.device("cpu")


def pair(rows, count, start):
    """Keys that say which token they are of, and values that are their negatives."""
    key = torch.arange(start, start + rows * count, dtype=torch.float32).view(rows, 1, count, 1).expand(rows, 2, count, 3)
    return key, -key


def test_equal_rows_are_filled_from_the_left():
    cache = KVCache(9)
    positions, mask = cache.begin(4, CPU)
    assert positions.tolist() == [0, 1, 2, 3] and mask is None
    first = pair(2, 4, 10)
    for layer in range(2):
        key, value = cache.append(layer, first[0] + layer, first[1] - layer)
        assert torch.equal(key, first[0] + layer) and torch.equal(value, first[1] - layer)
    room = cache.keys[0]
    assert room.shape == (2, 2, 9, 3)
    positions, mask = cache.begin(1, CPU)
    assert positions.tolist() == [4] and mask is None and cache.used == 5
    second = pair(2, 1, 50)
    for layer in range(2):
        key, value = cache.layer(layer)(second[0] + layer, second[1] - layer)
        assert torch.equal(key, torch.cat([first[0], second[0]], 2) + layer)
        assert torch.equal(value, torch.cat([first[1], second[1]], 2) - layer)
    assert cache.keys[0] is room and len(cache.keys) == 2  # taken once


def test_rows_of_unequal_length_go_on_at_their_own_places():
    cache = KVCache(9)
    cache.begin(4, CPU)
    cache.append(0, *pair(3, 4, 10))  # 10 to 13, 14 to 17, 18 to 21
    cache.keep(torch.tensor([4, 2, 1]))
    positions, mask = cache.begin(2, CPU)
    assert positions.tolist() == [[4, 5], [2, 3], [1, 2]]
    key, value = cache.append(0, *pair(3, 2, 50))
    assert key[:, 0, :, 0].tolist() == [[10, 11, 12, 13, 50, 51], [14, 15, 52, 53, 0, 0], [18, 54, 55, 21, 0, 0]]
    assert torch.equal(value, -key)
    assert mask.shape == (3, 1, 2, 6)
    assert mask[:, 0].sum(-1).tolist() == [[5, 6], [3, 4], [2, 3]]
    assert mask[2, 0].int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert cache.begin(1, CPU)[0].tolist() == [[6], [4], [3]]


def test_keep_takes_tokens_back():
    cache = KVCache(9)
    cache.begin(4, CPU)
    cache.append(0, *pair(2, 4, 10))
    cache.keep(torch.tensor([2, 2]))
    positions, mask = cache.begin(1, CPU)
    assert positions.tolist() == [2] and mask is None  # equal again: no mask needed
    assert cache.append(0, *pair(2, 1, 50))[0][:, 0, :, 0].tolist() == [[10, 11, 50], [14, 15, 51]]


def test_select_goes_on_with_some_rows():
    cache = KVCache(9)
    cache.begin(3, CPU)
    cache.append(0, *pair(3, 3, 10))
    cache.keep(torch.tensor([3, 1, 2]))
    cache.select(torch.tensor([2, 0, 2]))
    assert cache.begin(1, CPU)[0].tolist() == [[2], [3], [2]]
    key, _ = cache.append(0, *pair(3, 1, 50))
    assert key[:, 0, :, 0].tolist() == [[16, 17, 50, 0], [10, 11, 12, 51], [16, 17, 52, 0]]
    cache.select(torch.tensor([0]))
    assert cache.rows is None and cache.used == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KVCache(0), "length must be at least 1, got 0"),
        (lambda: KVCache(3).begin(4, CPU), "the cache has room for 3 tokens, got 0 \\+ 4"),
        (lambda: KVCache(3).keep(torch.tensor([1, 2])), "lengths must be from 1 to 0, got 1 to 2"),
    ],
    ids=["length", "room", "keep"],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
