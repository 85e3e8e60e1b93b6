"""The order of an epoch, the shares of the ranks, and going on in the middle."""

import itertools

import pytest
import torch

from dlzoo.data.order import EpochOrder
from dlzoo.errors import ConfigError


def _order(size=101, batch_size=8, shuffle=True, **options):
    return EpochOrder(size, batch_size=batch_size, shuffle=shuffle, **options)


def _given(order):
    index = order.permutation()
    return [index[slice(*order.share(batch))].tolist() for batch in range(len(order))]


def _joined(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize(("size", "batch_size"), [(101, 8), (96, 8), (5, 8), (1, 1), (97, 8)])
def test_an_epoch_has_every_sample_once(size, batch_size):
    given = _given(_order(size, batch_size))
    assert sorted(_joined(given)) == list(range(size))
    assert [len(batch) for batch in given[:-1]] == [batch_size] * (len(given) - 1)


def test_dropping_the_last_batch_leaves_full_ones_only_and_never_none():
    assert [len(batch) for batch in _given(_order(101, 8, drop_last=True))] == [8] * 12
    assert [len(batch) for batch in _given(_order(5, 8, drop_last=True))] == [5]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("size", [101, 98, 97, 96, 7])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_give_the_order_of_one_process(size, shuffle, drop_last, world_size):
    options = {"batch_size": 8, "shuffle": shuffle, "drop_last": drop_last}
    alone = _given(_order(size, **options))
    ranks = [_given(_order(size, **options, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1  # no rank waits for another
    joined = [_joined(shares) for shares in zip(*ranks, strict=True)]
    assert _joined(joined) == _joined(alone)
    assert joined[:-1] == alone[: len(joined) - 1]
    for shares in zip(*ranks, strict=True):
        sizes = [len(share) for share in shares]
        assert min(sizes) > 0
        assert max(sizes) - min(sizes) <= 1


def test_each_epoch_has_its_own_order_and_keeps_it():
    order = _order()
    seen = []
    for epoch in (0, 1, 0):
        order.set_epoch(epoch)
        seen.append(order.permutation())
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(_order(seed=1).permutation(), seen[0])


def test_the_order_does_not_depend_on_the_batch_size():
    assert torch.equal(_order(batch_size=8).permutation(), _order(batch_size=50).permutation())


def _pass(order, stop=None):
    batches = []
    for batch in range(order.start(), len(order)):
        if batch == stop:
            break
        batches.append((order.epoch, batch))
        order.gave(batch)
    return batches


def test_passes_without_set_epoch_are_epochs():
    order = _order(24)
    assert _pass(order) + _pass(order) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert _pass(order, stop=1) == [(2, 0)]
    assert _pass(order)[0] == (2, 0)  # a pass that was broken off is begun again


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
@pytest.mark.parametrize("lightning", [False, True])
def test_a_loaded_state_goes_on_where_it_was_taken(stop, lightning):
    order = _order(24)
    _pass(order)
    before = _pass(order, stop=stop)
    state = order.state_dict()
    again = _order(24)
    again.load_state_dict(state)
    assert again.state_dict() == state
    if lightning:  # sets the epoch before each pass, also the first one after loading
        again.set_epoch(1)
    after = _pass(again)
    if stop == 3 and not lightning:  # the epoch was over: the next one comes
        assert after == [(2, 0), (2, 1), (2, 2)]
    else:
        assert before + after == [(1, 0), (1, 1), (1, 2)]


def test_setting_another_epoch_forgets_a_loaded_position():
    order = _order(24)
    order.load_state_dict({"epoch": 1, "batches": 2})
    order.set_epoch(2)
    assert _pass(order) == [(2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"batch_size": 9, "world_size": 2}, "not a positive multiple of the 2"),
        ({"size": 1, "batch_size": 2, "world_size": 2}, "cannot be shared by 2"),
    ],
)
def test_what_cannot_be_shared_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        _order(**options)


def test_evaluation_splits_a_batch_that_no_number_of_ranks_divides():
    shares = [_order(23, batch_size=10, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    assert {len(share) for share in shares} == {3}  # the rest of 3 is a batch of its own, one sample a rank
    seen = [position for share in shares for batch in range(len(share)) for position in range(*share.share(batch))]
    assert sorted(seen) == list(range(23))
    with pytest.raises(ConfigError, match=r"data\.eval_batch_size"):
        _order(23, batch_size=2, shuffle=False, world_size=3)


def test_a_rank_lies_below_the_world_size():
    with pytest.raises(ValueError, match="rank must be in"):
        _order(rank=2, world_size=2)
