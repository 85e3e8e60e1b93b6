"""RandAugment's operations are torchvision's, and what an image gets depends on (seed, epoch, index) alone."""

import pytest
import torch
from torchvision.transforms import v2

from dlzoo.data.augment import BatchAugment
from dlzoo.data.batches import ImageBatches
from dlzoo.data.growth import Growth
from dlzoo.data.order import EpochOrder
from dlzoo.data.picture_batches import FolderBatches, PictureFiles
from dlzoo.data.preprocess import Preprocess
from dlzoo.data.randaugment import OPERATIONS, SIGNED, STRONGEST, RandAugment
from dlzoo.data.streams import generator

THEIRS = {name: name.title().replace("_", "") for name in OPERATIONS} | {"autocontrast": "AutoContrast"}


def _images(count=40, channels=3, side=32):
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=random)
    return (noise // 2 + torch.arange(side, dtype=torch.uint8) * 2)[:, :, :, :side]  # a slope: a contrast to stretch


@pytest.mark.parametrize("magnitude", [1, 9, 17, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name, magnitude):
    theirs = v2.RandAugment(magnitude=magnitude, num_magnitude_bins=STRONGEST + 1, interpolation=v2.InterpolationMode.BILINEAR)
    images = _images(6)
    values, signed = theirs._AUGMENTATION_SPACE[THEIRS[name]]
    assert signed == (name in SIGNED)
    values = values(STRONGEST + 1, 32, 32)
    for backwards in (False, True) if signed else (False,):
        value = 0.0 if values is None else float(values[magnitude]) * (-1 if backwards else 1)
        settings = {"interpolation": theirs.interpolation, "fill": theirs._fill}
        want = torch.stack([theirs._apply_image_or_video_transform(one, THEIRS[name], value, **settings) for one in images])
        drawn = torch.full((6, 1), 2 * OPERATIONS.index(name) + backwards)
        ours = RandAugment(magnitude, count=1).apply(images, drawn)
        # the value is computed in doubles here, in floats there: at an edge between two pixels the rounding may differ
        assert (ours.int() - want.int()).abs().max() <= 1, (name, backwards)
        assert (ours != want).float().mean() < 0.01, (name, backwards)
        assert name == "identity" or magnitude < 9 or not torch.equal(ours, images)  # weak ones round to nothing


def test_the_list_of_operations_is_torchvisions():
    assert set(THEIRS.values()) == set(v2.RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_an_image_gets_the_same_alone_and_in_a_batch(channels, last):
    images = _images(200, channels)
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    augment = RandAugment(9)
    drawn = augment.draw(200, torch.Generator().manual_seed(1))
    together = augment.apply(images, drawn)
    assert together.dtype == torch.uint8 and together.stride() == images.stride()
    for i in range(200):
        assert torch.equal(augment.apply(images[i : i + 1], drawn[i : i + 1])[0], together[i]), i
    assert torch.equal(images, _images(200, channels)), "the data set is left as it is"


def test_magnitude_zero_changes_nothing():
    images, off = _images(), RandAugment(0)
    assert not off and off.apply(images, off.draw(40, torch.Generator())) is images
    plain, switched = BatchAugment((0.5,) * 3, (0.2,) * 3), BatchAugment((0.5,) * 3, (0.2,) * 3, randaugment=0)
    assert not switched.random
    assert torch.equal(switched.apply(images, switched.draw(40, 32, 32, seed=0, epoch=0)), plain.apply(images))


def test_all_operations_are_drawn_alike_and_both_ways():
    drawn = RandAugment(5).draw(20_000, torch.Generator().manual_seed(0)).flatten()
    counts = torch.bincount(drawn // 2, minlength=14)
    assert len(counts) == 14 and (counts - 40_000 / 14).abs().max() < 5 * (40_000 / 14) ** 0.5
    backwards = drawn % 2 == 1
    assert (drawn[backwards] // 2 < len(SIGNED)).all(), "what has no direction has one number"
    assert abs(backwards[drawn // 2 < len(SIGNED)].float().mean() - 0.5) < 0.02


def test_other_augmentations_stay_as_they_were():
    off, on = (BatchAugment((0.5,), (0.2,), crop_padding=2, flip=True, cutout=3, randaugment=m) for m in (0, 9))
    one, other = (augment.draw(50, 28, 28, seed=3, epoch=1) for augment in (off, on))
    assert all(torch.equal(a, b) for a, b in zip(one[:5], other[:5], strict=True))
    assert one.operations is None and other.operations.shape == (50, 2)
    again = on.draw(50, 28, 28, seed=3, epoch=2)
    assert not torch.equal(again.operations, other.operations)
    assert torch.equal(on.draw(50, 28, 28, seed=3, epoch=1).operations, other.operations)


def _loader(**options):
    images, labels = _images(60), torch.arange(60)
    augment = BatchAugment((0.5,) * 3, (0.2,) * 3, crop_padding=4, flip=True, randaugment=12)
    return ImageBatches(images, labels, augment=augment, shuffle=True, **({"batch_size": 12} | options))


def test_a_sample_looks_the_same_whatever_the_batch_size_or_the_rank():
    looks = []
    for loaders in ([_loader()], [_loader(batch_size=20)], [_loader(rank=rank, world_size=2) for rank in range(2)]):
        for loader in loaders:
            loader.sampler.set_epoch(2)
        looks.append({int(y): x for loader in loaders for xs, ys in loader for x, y in zip(xs, ys, strict=True)})
    for other in looks[1:]:
        assert set(other) == set(looks[0]) == set(range(60))
        assert all(torch.equal(other[label], looks[0][label]) for label in other)


def test_going_on_in_the_middle_of_an_epoch_gives_the_same_bits():
    whole, stopped, resumed = _loader(), _loader(), _loader()
    want = list(whole)
    iterator = iter(stopped)
    _ = [next(iterator) for _ in range(2)]
    resumed.load_state_dict(stopped.state_dict())
    got = list(resumed)
    assert len(got) == len(want) - 2
    assert all(torch.equal(a, b) for one, other in zip(got, want[2:], strict=True) for a, b in zip(one, other, strict=True))


# --- pictures in files, read by workers


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(_images(12, side=40)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"{number}.png")
    return [(root / f"{number}.png", number) for number in range(12)]


def _files(samples, magnitude=12, growth=None):
    preprocess = Preprocess(3, 32, 32, (0.5,) * 3, (0.2,) * 3, resize=36)
    return PictureFiles(samples, preprocess, train=True, seed=3, randaugment=magnitude, growth=growth)


def _read(samples, workers=0, rank=0, ranks=1, growth=None):
    order = EpochOrder(12, batch_size=4, shuffle=True, seed=3, rank=rank, world_size=ranks)
    loader = FolderBatches(_files(samples, growth=growth), order, num_workers=workers)
    order.set_epoch(1)
    return {int(y): x for xs, ys in loader for x, y in zip(xs, ys, strict=True)}


@pytest.mark.parametrize("growth", [None, Growth(0.5, 2)])
def test_neither_workers_nor_ranks_change_what_a_picture_gets(samples, growth):
    alone = _read(samples, growth=growth)
    assert {x.shape for x in alone.values()} == {(3, 24, 24) if growth else (3, 32, 32)}
    ranks = _read(samples, rank=0, ranks=2, growth=growth) | _read(samples, rank=1, ranks=2, growth=growth)
    for other in (_read(samples, workers=2, growth=growth), ranks):
        assert set(other) == set(range(12)) and all(torch.equal(other[label], alone[label]) for label in alone)


def test_a_picture_gets_its_crop_and_then_the_operations_of_its_own(samples):
    plain, varied = _files(samples, magnitude=0), _files(samples)
    changed = 0
    for index in range(12):
        crop, (got, label) = plain[1, index][0], varied[1, index]
        drawn = RandAugment(12).draw(1, generator("randaugment", 3, 1, index))
        assert label == index and torch.equal(got, RandAugment(12).apply(crop[None], drawn)[0])
        changed += not torch.equal(got, crop)
    assert changed >= 8


@pytest.mark.parametrize(
    "call", [lambda: RandAugment(31), lambda: RandAugment(-1), lambda: BatchAugment((0,), (1,), randaugment=40)]
)
def test_refuses(call):
    with pytest.raises(ValueError, match="randaugment must be from 0 to 30"):
        call()
