"""Pictures read by worker processes: the same samples whatever the number of workers or ranks; a bad one is named."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dlzoo.data.folder import pictures
from dlzoo.data.order import EpochOrder
from dlzoo.data.picture_batches import FolderBatches, PictureFiles, random_box
from dlzoo.data.preprocess import Preprocess
from dlzoo.data.streams import generator
from dlzoo.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESS = Preprocess(3, 16, 16, MEAN, STD, resize=18)
COUNT = 23


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(COUNT):
        folder = root / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return root


def _batches(root, *, train=True, num_workers=0, channels_last=False, rank=0, world_size=1, batch_size=4, samples=None):
    samples = samples or pictures(root, ("a", "b"))
    samples = [(path, index) for index, (path, _) in enumerate(samples)]  # labels that tell which sample it is
    files = PictureFiles(samples, PREPROCESS, train=train)
    order = EpochOrder(len(files), batch_size=batch_size, shuffle=train, rank=rank, world_size=world_size)
    return FolderBatches(files, order, num_workers=num_workers, channels_last=channels_last)


def _epoch(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def _equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_the_number_of_workers_changes_nothing(root):
    alone, workers = _batches(root), _batches(root, num_workers=2)
    for epoch in (0, 1):
        assert _equal(_epoch(alone, epoch), _epoch(workers, epoch))
    assert not _equal(_epoch(alone, 0), _epoch(alone, 1))


def test_the_ranks_together_are_the_batches_of_one_process(root):
    alone = _epoch(_batches(root), 2)
    ranks = [_epoch(_batches(root, rank=rank, world_size=2), 2) for rank in range(2)]
    joined = [tuple(torch.cat(tensors) for tensors in zip(*shares, strict=True)) for shares in zip(*ranks, strict=True)]
    assert _equal(alone, joined)


def test_a_sample_looks_the_same_whatever_the_batch_size(root):
    looks = [
        {int(label): image for x, y in _epoch(_batches(root, batch_size=size)) for image, label in zip(x, y, strict=True)}
        for size in (4, 7)
    ]
    assert looks[0].keys() == looks[1].keys() == set(range(COUNT))
    assert all(torch.equal(looks[0][label], looks[1][label]) for label in looks[0])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_goes_on_in_the_middle_of_an_epoch(root, num_workers):
    want = _epoch(_batches(root), 3)
    cut = _batches(root, num_workers=num_workers)
    cut.sampler.set_epoch(3)
    iterator = iter(cut)
    for _ in range(2):
        next(iterator)
    state = cut.state_dict()
    assert state == {"epoch": 3, "batches": 2}  # though workers have read ahead
    again = _batches(root)
    again.load_state_dict(state)
    assert _equal(_epoch(again, 3), want[2:])
    assert _equal(_epoch(cut, 3), want)  # a pass that was broken off is begun again


def test_evaluation_is_the_preprocessing_of_prediction(root):
    samples = pictures(root, ("a", "b"))
    batches = _epoch(_batches(root, train=False, channels_last=True))
    assert torch.cat([y for _, y in batches]).tolist() == list(range(COUNT))
    x = torch.cat([x for x, _ in batches])
    torch.testing.assert_close(x, torch.stack([PREPROCESS(path) for path, _ in samples]), rtol=0, atol=1e-5)
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_a_training_sample_is_a_crop_as_torchvision_makes_it(root):
    from torchvision.transforms.v2 import functional as F

    samples = pictures(root, ("a", "b"))
    files = PictureFiles(samples, PREPROCESS, train=True, seed=9)
    mirrored = 0
    for index, (path, _) in enumerate(samples):
        got, _ = files[5, index]
        image = Image.open(path).convert("RGB")
        left, top, right, bottom = random_box(*image.size, generator("augment", 9, 5, index), 0.08)
        want = F.pil_to_tensor(F.resized_crop(image, top, left, bottom - top, right - left, [16, 16]))
        mirrored += torch.equal(got, want.flip(-1))
        assert torch.equal(got, want) or torch.equal(got, want.flip(-1))
    assert 0 < mirrored < COUNT


def test_random_boxes_have_the_area_and_proportion_of_the_paper():
    boxes = [random_box(400, 300, generator("test", number), 0.08) for number in range(2_000)]
    area = torch.tensor([(r - l) * (b - t) / 120_000 for l, t, r, b in boxes])  # noqa: E741
    ratio = torch.tensor([(r - l) / (b - t) for l, t, r, b in boxes])  # noqa: E741
    assert all(0 <= l < r <= 400 and 0 <= t < b <= 300 for l, t, r, b in boxes)  # noqa: E741
    assert 0.075 < area.min() < 0.1
    assert area.max() > 0.95
    assert 0.74 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.35
    assert abs(ratio.log().mean()) < 0.03  # as likely wide as tall


@pytest.mark.parametrize(("size", "want"), [((1000, 10), (13, 10)), ((10, 1000), (10, 13)), ((1, 1), (1, 1))])
def test_a_picture_too_long_for_any_box_gives_its_centre(size, want):
    left, top, right, bottom = random_box(*size, generator("test"), 1.0)
    assert (right - left, bottom - top) == want
    assert math.isclose(left + right, size[0], abs_tol=1)
    assert math.isclose(top + bottom, size[1], abs_tol=1)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("train", [True, False])
def test_a_corrupt_picture_is_named_also_from_a_worker(root, tmp_path, num_workers, train):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    samples = [*pictures(root, ("a", "b")), (bad, 1)]
    with pytest.raises(DataError, match="is not a readable picture") as caught:
        list(_batches(root, samples=samples, num_workers=num_workers, train=train))
    assert caught.value.where == f"{bad} (sample index {len(samples) - 1})"
    assert caught.value.fix
    assert "Traceback" not in str(caught.value)


def test_a_worker_that_dies_is_a_data_error(root):
    class Deadly(PictureFiles):
        def __getitem__(self, key):
            import os

            os._exit(1)

    files = Deadly(pictures(root, ("a", "b")), PREPROCESS)
    loader = FolderBatches(files, EpochOrder(COUNT, batch_size=4, shuffle=False), num_workers=1)
    with pytest.raises(DataError, match="a process that reads pictures died") as caught:
        list(loader)
    assert "/dev/shm" in caught.value.fix


def test_the_global_generator_is_left_alone(root):
    before = torch.get_rng_state()
    _epoch(_batches(root))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_process_that_reads_and_does_not_hear_the_end_does_not_hold_up_python(root):
    """On a busy machine the word to end can get lost; the processes are deaf to SIGTERM, and Python would wait for good."""
    code = f"""
from pathlib import Path
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Reader
from dlzoo.data.folder import pictures
from dlzoo.data.order import EpochOrder
from dlzoo.data.picture_batches import FolderBatches, PictureFiles
from dlzoo.data.preprocess import Preprocess

Reader._mark_worker_as_unavailable = lambda self, worker_id, shutdown=False: None  # it got lost
files = PictureFiles(pictures(Path({str(root)!r}), ("a", "b")), Preprocess(3, 8, 8, (0.5,) * 3, (0.5,) * 3))
loader = FolderBatches(files, EpochOrder(len(files), batch_size=2, shuffle=False), num_workers=1)
print(len(list(loader)))
reader = loader._loader._iterator
del loader  # what reads may outlive what it read for
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and int(done.stdout) > 1, done.stderr


@pytest.mark.parametrize("quiet", [True, False])
def test_a_process_that_reads_says_nothing_of_a_run_that_went_away(quiet):
    """As the run is gone while it takes a batch from shared memory: multiprocessing would print a traceback after our error."""
    code = (
        "import socket, time\n"
        "from multiprocessing import resource_sharer\n"
        "from dlzoo.data import picture_batches\n"
        f"if {quiet}: picture_batches._begin_reading(0)\n"
        "resource_sharer._resource_sharer._start()\n"
        "with socket.socket(socket.AF_UNIX) as taker: taker.connect(resource_sharer._resource_sharer._address)\n"
        "time.sleep(0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ("Traceback" in done.stderr) is not quiet, done.stderr
