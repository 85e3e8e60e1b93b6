"""An image and its mask are cropped, mirrored and turned alike, by numbers that depend on seed, epoch and index alone."""

import pytest
import torch

from dlzoo.data.mask_batches import MaskAugment, MaskBatches
from dlzoo.data.masks import Masked
from dlzoo.data.preprocess import Preprocess

COUNT, HEIGHT, WIDTH = 6, 10, 14
PLAIN = Preprocess(1, HEIGHT, WIDTH, (0.0,), (1.0,))


def numbered() -> Masked:
    """Every pixel of every image holds a number of its own, and the mask the same."""
    images = torch.arange(COUNT * HEIGHT * WIDTH).view(COUNT, 1, HEIGHT, WIDTH) % 251
    return Masked(images.byte(), images[:, 0].byte())


def batches(augment=None, **options) -> MaskBatches:
    return MaskBatches(numbered(), PLAIN, augment=augment, **({"batch_size": 4} | options))


def pixels(x):
    return (x * 255).round().long()[:, 0]


@pytest.mark.parametrize("augment", [None, MaskAugment(), MaskAugment((6, 6), "all", 3), MaskAugment((4, 9), "sideways")])
@pytest.mark.parametrize("channels_last", [False, True])
def test_image_and_mask_stay_together(augment, channels_last):
    seen = 0
    for x, y in batches(augment, shuffle=True, channels_last=channels_last):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert torch.equal(pixels(x), y)
        seen += len(y)
    assert seen == COUNT * (augment.crops if augment else 1)


def test_every_way_to_lay_a_crop_occurs():
    """Corners tell the eight ways apart; half of them where the sky has to stay above, one where nothing is allowed."""
    image = torch.tensor([[0, 1], [2, 3]], dtype=torch.uint8)
    data = Masked(image.repeat(200, 1, 1, 1), image.repeat(200, 1, 1))
    for flip, ways in (("none", 1), ("sideways", 2), ("all", 8)):
        loader = MaskBatches(data, Preprocess(1, 2, 2, (0.0,), (1.0,)), batch_size=200, augment=MaskAugment(flip=flip))
        (_, y), *_ = loader
        found, counts = y.flatten(1).unique(dim=0, return_counts=True)
        assert len(found) == ways
        assert counts.min() > 0.5 * 200 / ways


def test_a_crop_comes_from_anywhere_in_the_image_and_from_nowhere_else():
    data = Masked(
        torch.zeros(300, 1, HEIGHT, WIDTH, dtype=torch.uint8),
        torch.arange(HEIGHT * WIDTH).view(1, HEIGHT, WIDTH).repeat(300, 1, 1).byte(),
    )
    (_, y), *_ = MaskBatches(data, PLAIN, batch_size=300, augment=MaskAugment((8, 11)))
    corners = {tuple(divmod(corner, WIDTH)) for corner in y[:, 0, 0].tolist()}
    assert corners == {(top, left) for top in range(HEIGHT - 8 + 1) for left in range(WIDTH - 11 + 1)}


def drawn(batch_size, epoch=0, seed=0, world_size=1):
    """Each sample of an epoch as the numbers of its pixels, in order."""
    found = []
    shares = [
        batches(MaskAugment((6, 6), "all", 2), shuffle=True, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for loader in shares:
        loader.sampler.set_epoch(epoch)
    for parts in zip(*shares, strict=True):
        found += [mask.flatten().tolist() for _, y in parts for mask in y]
    return found


def test_what_happens_depends_on_seed_epoch_and_index_alone():
    first = drawn(4)
    assert drawn(4) == first == drawn(12) == drawn(4, world_size=2)
    assert drawn(4, epoch=1) != first and drawn(4, seed=1) != first
    assert drawn(4, epoch=1) == drawn(6, epoch=1)
    state = torch.random.get_rng_state()
    drawn(4)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone


def test_it_goes_on_in_the_middle_of_an_epoch():
    options = {"shuffle": True, "batch_size": 2}
    whole = [y for _, y in batches(MaskAugment((6, 6), "all"), **options)]
    loader = batches(MaskAugment((6, 6), "all"), **options)
    begun = iter(loader)
    next(begun)
    state = loader.state_dict()
    other = batches(MaskAugment((6, 6), "all"), **options)
    other.load_state_dict(state)
    rest = [y for _, y in other]
    assert len(rest) == len(whole) - 1
    assert all(torch.equal(one, two) for one, two in zip(rest, whole[1:], strict=True))


def test_switching_one_augmentation_off_leaves_the_others():
    one = MaskAugment((6, 6), "all").draw(50, HEIGHT, WIDTH, seed=0, epoch=0)
    other = MaskAugment((6, 6), "none").draw(50, HEIGHT, WIDTH, seed=0, epoch=0)
    assert torch.equal(one[:, :2], other[:, :2]) and not other[:, 2:].any() and one[:, 2:].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaskAugment((4,)), "crop must be a height and a width"),
        (lambda: MaskAugment(flip="up"), "flip must be 'none', 'sideways' or 'all', got 'up'"),
        (lambda: MaskAugment(crops=0), "crops must be at least 1, got 0"),
        (lambda: batches(MaskAugment((HEIGHT + 1, 3))), "crop must lie inside the images, which are 10x14"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
