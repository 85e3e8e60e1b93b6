"""Image sizes grow over the epochs, as a function of the epoch alone."""

import pytest
import torch

from dlzoo.data.augment import BatchAugment
from dlzoo.data.batches import ImageBatches
from dlzoo.data.growth import Growth


def test_sides_grow_in_steps_that_networks_can_halve():
    assert [Growth(0.5, 4).side(32, epoch) for epoch in range(6)] == [16, 20, 24, 28, 32, 32]
    assert [Growth(0.5, 4).side(224, epoch) for epoch in range(6)] == [128, 128, 160, 192, 224, 224]
    assert [Growth(0.5, 2).side(28, epoch) for epoch in range(3)] == [16, 20, 28]
    assert Growth(0.1, 3).side(8, 0) == 4
    for full in (8, 28, 32, 64, 96, 224, 250):
        sides = [Growth(0.3, 20).side(full, epoch) for epoch in range(25)]
        assert sides == sorted(sides) and sides[-1] == full and min(sides) >= 4


def test_without_growth_every_epoch_has_the_full_size():
    assert {Growth().side(30, epoch) for epoch in range(5)} == {30}


@pytest.mark.parametrize(
    ("start", "epochs", "message"),
    [
        (0.0, 3, r"grow_from must be in \(0, 1\]"),
        (1.5, 0, "grow_from"),
        (0.5, -1, "grow_epochs"),
        (0.5, 0, "go together"),
        (1.0, 3, "go together"),
    ],
)
def test_refuses(start, epochs, message):
    with pytest.raises(ValueError, match=message):
        Growth(start, epochs)


def _loader(growth, channels_last=False):
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augment = BatchAugment((0.5,) * 3, (0.2,) * 3, crop_padding=4, flip=True, cutout=8)
    options = {"batch_size": 6, "shuffle": True, "channels_last": channels_last}
    return ImageBatches(images, torch.arange(24), augment=augment, growth=growth, **options)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_have_the_epochs_size(channels_last):
    loader = _loader(Growth(0.5, 2), channels_last)
    sizes = []
    for _ in range(3):
        batches = [x for x, _ in loader]
        sizes += {tuple(x.shape[2:]) for x in batches}
        form = torch.channels_last if channels_last else torch.contiguous_format
        assert all(x.is_contiguous(memory_format=form) for x in batches)
    assert sizes == [(16, 16), (24, 24), (32, 32)]
    full = _loader(None, channels_last)
    full.sampler.set_epoch(2)
    loader.sampler.set_epoch(2)
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(loader, full, strict=True))


def test_a_small_image_is_the_large_one_seen_from_afar():
    small, full = _loader(Growth(0.5, 2)), _loader(None)
    for (x, y), (want, labels) in zip(small, full, strict=True):
        assert torch.equal(y, labels)
        middle = torch.nn.functional.avg_pool2d(want, 2)
        assert torch.corrcoef(torch.stack([x.flatten(), middle.flatten()]))[0, 1] > 0.9


def test_going_on_in_the_middle_of_an_epoch_gives_the_same_bits():
    whole, stopped, resumed = (_loader(Growth(0.5, 2)) for _ in range(3))
    _, want = list(whole), list(whole)  # the second epoch
    list(stopped)
    iterator = iter(stopped)
    next(iterator)
    resumed.load_state_dict(stopped.state_dict())
    got = list(resumed)
    assert [x.shape[2] for x, _ in got] == [24, 24, 24]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(got, want[1:], strict=True))
