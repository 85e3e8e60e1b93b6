"""The cut of a validation set: fixed, disjoint, nested."""

import pytest
import torch

from dlzoo.data.splits import held_out


def test_a_cut_is_complete_disjoint_and_the_same_every_time():
    kept, held = held_out(1_000, 100)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(1_000))
    assert len(held) == 100
    torch.manual_seed(5)
    assert torch.equal(held_out(1_000, 100)[1], held)


def test_a_larger_cut_contains_a_smaller_one():
    assert set(held_out(1_000, 50)[1].tolist()) < set(held_out(1_000, 100)[1].tolist())


def test_nothing_held_out_keeps_everything():
    assert held_out(10, 0)[0].tolist() == list(range(10))


@pytest.mark.parametrize("count", [-1, 10, 11])
def test_something_must_be_left(count):
    with pytest.raises(ValueError, match=r"must be in \[0, 10\)"):
        held_out(10, count)
