"""Batches of images in memory: the same samples, looking the same, however they are batched and shared."""

import pytest
import torch

from dlzoo.data.augment import BatchAugment
from dlzoo.data.batches import ImageBatches

SIZE = 101


def _batches(batch_size=8, *, size=SIZE, shuffle=True, random=True, **options):
    images = torch.randint(0, 256, (size, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    random = {"crop_padding": 2, "flip": True, "cutout": 3} if random else {}
    augment = BatchAugment((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), **random)
    # a sample's label is its index, so that a test can tell which it got
    return ImageBatches(images, torch.arange(size), batch_size=batch_size, augment=augment, shuffle=shuffle, **options)


def _looks(*loaders, epoch=0):
    """What an epoch makes of each sample: label -> image."""
    looks = {}
    for loader in loaders:
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            for image, label in zip(x, y.tolist(), strict=True):
                assert label not in looks, "a sample came twice"
                looks[label] = image
    return looks


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[label], other[label]) for label in one)


def test_shapes_types_and_the_length():
    loader = _batches()
    x, y = next(iter(loader))
    assert (x.shape, x.dtype) == ((8, 3, 12, 10), torch.float32)
    assert (y.shape, y.dtype) == ((8,), torch.int64)
    assert len(loader) == len(list(loader)) == 13
    assert len(_batches(drop_last=True)) == len(list(_batches(drop_last=True))) == 12


@pytest.mark.parametrize(
    "other",
    [
        [{"batch_size": 50}],
        [{"batch_size": SIZE}],
        [{"channels_last": True}],
        [{"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2}],
        [{"batch_size": 12, "rank": rank, "world_size": 4, "channels_last": True} for rank in range(4)],
    ],
)
def test_a_sample_looks_the_same_whatever_the_batch_size_rank_or_layout(other):
    assert _same(_looks(_batches(), epoch=3), _looks(*[_batches(**options) for options in other], epoch=3))


def test_a_sample_looks_the_same_wherever_it_comes_in_the_order():
    assert _same(_looks(_batches()), _looks(_batches(shuffle=False)))


def test_a_sample_looks_different_in_another_epoch_or_with_another_seed():
    first = _looks(_batches())
    for other in (_looks(_batches(), epoch=1), _looks(_batches(seed=1))):
        differs = [not torch.equal(first[label], other[label]) for label in first]
        assert sum(differs) > 0.9 * SIZE


def test_the_ranks_together_are_the_batches_of_one_process():
    alone = list(_batches())
    ranks = [list(_batches(rank=rank, world_size=2)) for rank in range(2)]
    for (x, y), *shares in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([share[0] for share in shares]), x)
        assert torch.equal(torch.cat([share[1] for share in shares]), y)


def test_evaluation_gives_every_sample_once_in_order_and_unchanged():
    loader = _batches(shuffle=False, random=False)
    x = torch.cat([x for x, _ in loader])
    assert torch.equal(torch.cat([y for _, y in loader]), torch.arange(SIZE))
    images = torch.randint(0, 256, (SIZE, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(x, (images / 255 - mean) / std, rtol=0, atol=2e-6)


def test_channels_last_batches_have_that_layout():
    x, _ = next(iter(_batches(channels_last=True)))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous()


def test_iterating_again_is_the_next_epoch():
    loader = _batches()
    orders = [torch.cat([y for _, y in loader]).tolist() for _ in range(2)]
    assert orders[0] != orders[1]
    loader.sampler.set_epoch(1)
    assert torch.cat([y for _, y in loader]).tolist() == orders[1]


@pytest.mark.parametrize("stop", [1, 5, 12])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_goes_on_in_the_middle_of_an_epoch_bit_by_bit(stop, world_size):
    straight = _batches(rank=world_size - 1, world_size=world_size)
    straight.sampler.set_epoch(4)
    want = list(straight)

    cut = _batches()  # on one device; it may go on with another number of them
    cut.sampler.set_epoch(4)
    iterator = iter(cut)
    for _ in range(stop):
        next(iterator)
    again = _batches(rank=world_size - 1, world_size=world_size)
    again.load_state_dict(cut.state_dict())
    again.sampler.set_epoch(4)
    got = list(again)
    assert len(got) == len(want) - stop
    for (x, y), (want_x, want_y) in zip(got, want[stop:], strict=True):
        assert torch.equal(x, want_x)
        assert torch.equal(y, want_y)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    list(_batches())
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_do_not_share_memory_with_the_data():
    loader = _batches(shuffle=False, random=False)
    first = next(iter(loader))[0].clone()
    for x, _ in loader:
        x.zero_()
    assert torch.equal(next(iter(loader))[0], first)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), "images must be uint8"),
        (torch.zeros(4, 3, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), "images must be uint8"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), "labels must be int64"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4), "labels must be int64"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), "1 channels"),
    ],
)
def test_other_types_and_shapes_are_refused(images, labels, words):
    with pytest.raises(ValueError, match=words):
        ImageBatches(images, labels, batch_size=2, augment=BatchAugment((0.5,) * 3, (0.5,) * 3))


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_makes_the_same_batches(channels_last):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    on_gpu = list(_batches(device="cuda", channels_last=channels_last))
    for (x, y), (want_x, want_y) in zip(on_gpu, _batches(channels_last=channels_last), strict=True):
        assert x.is_cuda
        assert x.stride() == want_x.stride()
        torch.testing.assert_close(x.cpu(), want_x, rtol=0, atol=1e-6)  # the GPU may fuse factor and shift
        assert torch.equal(y.cpu(), want_y)
