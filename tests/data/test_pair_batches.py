"""Pairs of sentences in batches: of one length, of one cost, each once, and the same for any number of ranks."""

import numpy as np
import pytest
import torch

from dlzoo.data.pair_batches import PairBatches, Rows
from dlzoo.data.sentences import BEGIN, END, PADDING
from dlzoo.errors import ConfigError

COUNT, BUDGET = 600, 800


def _pairs(count=COUNT, longest=30, seed=0):
    """Sentences whose lengths go together, as translations do; the source's first token tells which pair it is."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest, count)
    source = [np.append([3 + at], np.r_[random.integers(3, 9, length), END]) for at, length in enumerate(lengths)]
    target = [np.append(random.integers(3, 9, max(1, length + random.integers(-2, 3))), END) for length in lengths]
    return source, target


def _batches(count=COUNT, **options):
    return PairBatches(*_pairs(count), **{"batch_tokens": BUDGET, "shuffle": True, **options})


def _indices(loader):
    return [batch.index.tolist() for batch in loader]


def test_rows_are_filled_up_to_the_longest():
    rows = Rows([np.array([5, 6, 2]), np.array([2]), np.array([7, 2])])
    assert rows.take(torch.tensor([2, 0])).tolist() == [[7, 2, PADDING], [5, 6, 2]]
    assert rows.take(torch.tensor([1]), torch.tensor([1, 2])).tolist() == [[2, PADDING]]
    assert rows.take(torch.tensor([1])).tolist() == [[2]] and rows.lengths.tolist() == [3, 1, 2]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_pair_comes_once_an_epoch_whole_and_with_its_own(shuffle):
    source, target = _pairs()
    loader = _batches(shuffle=shuffle)
    for _ in range(2):
        seen = []
        for batch in loader:
            assert batch.source.dtype == batch.target.dtype == batch.index.dtype == torch.int64
            assert batch.predicted == (batch.target[:, 1:] != PADDING).sum()
            for at, reads, writes in zip(batch.index.tolist(), batch.source, batch.target, strict=True):
                assert reads[reads != PADDING].tolist() == source[at].tolist()
                assert writes[writes != PADDING].tolist() == [BEGIN, *target[at]]
                seen.append(at)
        assert sorted(seen) == list(range(COUNT))


def test_no_batch_is_above_the_budget_and_few_are_far_below():
    sizes = [batch.source.numel() + batch.target.numel() for batch in _batches()]
    assert max(sizes) <= BUDGET and np.mean(sizes) > 0.85 * BUDGET and len(sizes) == len(_batches())
    assert min(map(len, _indices(_batches()))) >= 8


def test_little_is_padding_where_random_batches_are_full_of_it():
    def padded(batches):
        rows = [rows for batch in batches for rows in (batch.source, batch.target)]
        return sum((each == PADDING).sum() for each in rows) / sum(each.numel() for each in rows)

    assert padded(_batches()) < 0.11, "of 600 pairs of random lengths; of 29,000 captions it is 0.045"
    assert padded(_batches(bucket=1)) < padded(_batches(bucket=8)) < padded(_batches(bucket=100))
    assert padded(_batches(bucket=100)) > 0.25


def test_an_epoch_is_a_function_of_seed_and_epoch():
    one, other = _batches(seed=1), _batches(seed=1)
    first, second = _indices(one), _indices(one)
    assert first != second and first == _indices(other) != _indices(_batches(seed=2))
    other.sampler.set_epoch(1)
    assert _indices(other) == second
    assert sorted(map(len, first)) == sorted(map(len, second))
    # not only the order of the batches is new: pairs have other companions
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_without_shuffling_each_pass_is_the_same_from_short_to_long():
    loader = _batches(shuffle=False)
    first = _indices(loader)
    assert first == _indices(loader)
    widths = [batch.target.shape[1] for batch in loader]
    assert widths == sorted(widths)


def test_it_goes_on_where_it_stopped():
    whole = _batches(seed=5)
    expected = [*_indices(whole), *_indices(whole)]
    half = _batches(seed=5)
    for _, _ in zip(range(3), half, strict=False):
        state = half.state_dict()
    assert state == {"epoch": 0, "batches": 3}
    again = _batches(seed=5)
    again.load_state_dict(state)
    assert [*_indices(again), *_indices(again)] == expected[3:]
    finished = _batches(seed=5)
    finished.load_state_dict({"epoch": 0, "batches": len(whole)})
    assert _indices(finished) == expected[len(whole) :]


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_ranks_share_the_batches_of_one(world, shuffle):
    whole = list(_batches(shuffle=shuffle))
    shares = [list(_batches(shuffle=shuffle, rank=rank, world_size=world)) for rank in range(world)]
    for at, batch in enumerate(whole):
        parts = [share[at] for share in shares]
        assert sorted(np.concatenate([part.index for part in parts])) == sorted(batch.index.tolist())
        tokens = [(part.target[:, 1:] != PADDING).sum() for part in parts]
        assert sum(tokens) == batch.predicted and max(tokens) <= 2 * min(tokens) + 40
        for part in parts:
            assert part.predicted == pytest.approx(batch.predicted / world)


def test_the_ranks_shares_are_of_one_length():
    """That of the longest of them: the steps of a recurrent network are as many on each."""
    shares = [list(_batches(rank=rank, world_size=3)) for rank in range(3)]
    apart = 0
    for whole, *parts in zip(_batches(), *shares, strict=True):
        for name in ("source", "target"):
            assert {getattr(part, name).shape[1] for part in parts} == {getattr(whole, name).shape[1]}
            apart += any((getattr(part, name)[:, -1] == PADDING).all() for part in parts)
    assert apart > 0, "some share has no sentence as long as that"


def test_one_batch_holds_all_of_a_few():
    loader = _batches(5, batch_tokens=100_000)
    assert len(loader) == 1 and sorted(_indices(loader)[0]) == list(range(5))


def test_what_can_not_be_is_told():
    with pytest.raises(ConfigError, match=r"a pair has .* and a batch may have 20") as caught:
        _batches(batch_tokens=20)
    assert "data.batch_tokens=" in caught.value.fix
    with pytest.raises(ConfigError, match="which 64 devices cannot share"):
        _batches(rank=0, world_size=64)
    with pytest.raises(ValueError, match="a source for each target"):
        PairBatches(_pairs()[0], _pairs()[1][:-1], batch_tokens=BUDGET)
    with pytest.raises(ValueError, match="bucket must be at least 1"):
        _batches(bucket=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        _batches(batch_size=0)
    with pytest.raises(ValueError, match="rank must be"):
        _batches(rank=2, world_size=2)


def test_a_batch_may_be_limited_in_pairs_as_well():
    sizes = list(map(len, _indices(_batches(batch_size=10))))
    assert max(sizes) == 10 and sum(sizes) == COUNT and sizes.count(10) > 0.9 * len(sizes)


def test_the_last_two_batches_share_evenly_but_within_the_budget():
    rows = [np.full(9, END)] * 16
    few = PairBatches(rows, rows, batch_tokens=15 * 20, bucket=1)
    assert list(map(len, _indices(few))) == [8, 8]
    rows = [np.full(9, END)] * 15 + [np.full(140, END)]
    outlier = PairBatches(rows, rows, batch_tokens=300, bucket=1)
    assert list(map(len, _indices(outlier))) == [15, 1], "a second pair filled up to its length would be too much"
