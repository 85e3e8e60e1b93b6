"""Crops are windows of the padded image, flips mirrors, cutouts squares; their numbers depend on (seed, epoch, index) alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlzoo.data.augment import BatchAugment, PaddedImages

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _images(count=64, channels=3, side=32, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=random)


def _plain(channels=3, **options):
    """An augmentation whose normalisation is the identity, so that bytes can be compared."""
    return BatchAugment((0.0,) * channels, (1 / 255,) * channels, **options)


@pytest.mark.parametrize("device", ["cpu", "as if on another device"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "side", "padding"), [(3, 32, 4), (1, 28, 2), (1, 8, 1)])
def test_every_output_is_the_crop_and_mirror_that_was_drawn(channels, side, padding, channels_last, device):
    images = _images(channels=channels, side=side)
    augment = _plain(channels, crop_padding=padding, flip=True)
    draws = augment.draw(64, side, side, seed=3, epoch=5)
    store = PaddedImages(images, padding=padding, channels_last=channels_last)
    if device != "cpu":
        store.windows = None
    x = augment.apply(store.take(store.starts(torch.arange(64), draws.top, draws.left)), draws).round().to(torch.uint8)
    padded = F.pad(images, (padding,) * 4)
    for i in range(64):
        top, left = int(draws.top[i]), int(draws.left[i])
        crop = padded[i, :, top : top + side, left : left + side]
        assert torch.equal(x[i], crop.flip(-1) if draws.flip[i] else crop), i


def test_a_crop_may_lie_anywhere_and_half_of_the_images_are_mirrored():
    draws = _plain(crop_padding=4, flip=True).draw(20_000, 32, 32, seed=0, epoch=0)
    for positions in (draws.top, draws.left):
        counts = positions.bincount(minlength=9)
        assert len(counts) == 9
        assert (counts - 20_000 / 9).abs().max() < 5 * (20_000 / 9) ** 0.5  # five standard deviations
    assert abs(draws.flip.float().mean() - 0.5) < 5 * 0.5 / 20_000**0.5
    together = torch.corrcoef(torch.stack([draws.top.float(), draws.left.float(), draws.flip.float()]))
    assert (together - torch.eye(3)).abs().max() < 0.05


def test_normalisation_is_that_of_numpy():
    images = _images()
    want = (images.numpy().astype(np.float64) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    augment = BatchAugment(MEAN, STD)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        x = augment.apply(given)
        assert x.dtype == torch.float32
        assert x.stride() == given.stride()
        np.testing.assert_allclose(x.numpy(), want, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("centre", "rows", "columns"), [((5, 20), (1, 9), (16, 24)), ((0, 31), (0, 4), (27, 32))])
def test_cutout_is_one_square_of_the_mean_colour_clipped_at_the_border(centre, rows, columns):
    augment = BatchAugment(MEAN, STD, cutout=8)
    draws = augment.draw(4, 32, 32, seed=0, epoch=0)
    draws = draws._replace(hole_row=torch.full((4,), centre[0]), hole_column=torch.full((4,), centre[1]))
    images = _images(4)
    x, whole = augment.apply(images, draws), augment.apply(images)
    hole = torch.zeros(32, 32, dtype=torch.bool)
    hole[slice(*rows), slice(*columns)] = True
    assert (x[:, :, hole] == 0).all()
    assert torch.equal(x[:, :, ~hole], whole[:, :, ~hole])


def test_the_centre_of_the_square_is_drawn_over_the_whole_image():
    draws = BatchAugment(MEAN, STD, cutout=8).draw(5_000, 32, 24, seed=0, epoch=0)
    assert (draws.hole_row.min(), draws.hole_row.max()) == (0, 31)
    assert (draws.hole_column.min(), draws.hole_column.max()) == (0, 23)


def test_draws_differ_between_epochs_and_seeds_and_are_repeated_for_the_same():
    augment = _plain(crop_padding=4)
    tops = {(seed, epoch): augment.draw(100, 32, 32, seed=seed, epoch=epoch).top for seed in range(3) for epoch in range(3)}
    assert torch.equal(tops[1, 2], augment.draw(100, 32, 32, seed=1, epoch=2).top)
    assert len({tuple(top.tolist()) for top in tops.values()}) == 9  # (0, 1) is not (1, 0) either


def test_switching_one_augmentation_off_leaves_the_others_as_they_were():
    both, crop = _plain(crop_padding=4, flip=True), _plain(crop_padding=4)
    assert torch.equal(both.draw(50, 32, 32, seed=0, epoch=0).left, crop.draw(50, 32, 32, seed=0, epoch=0).left)
    assert crop.draw(50, 32, 32, seed=0, epoch=0).flip is None


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    _plain(crop_padding=4, flip=True, cutout=2).draw(10, 8, 8, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"crop_padding": -1}, {"cutout": -2}])
def test_negative_sizes_are_refused(options):
    with pytest.raises(ValueError, match="at least 0"):
        BatchAugment(MEAN, STD, **options)


@pytest.mark.parametrize("std", [(0.2, 0.2), (0.2, 0.2, 0.0)])
def test_a_std_is_needed_for_each_channel(std):
    with pytest.raises(ValueError, match="one value a channel"):
        BatchAugment(MEAN, std)
