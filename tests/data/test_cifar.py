"""CIFAR from each form it is found in; which one is told by `edition`, and a cache never stands in for another source."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from dlzoo.data import cifar
from dlzoo.data.cifar import CIFAR10, CIFAR10_CLASSES, CIFAR100, read_cifar
from dlzoo.errors import DataError, UnsafeError

COARSE = [(7 * fine + 3) % 20 for fine in range(100)]  # some superclass for each class


class Rows:
    """Bytes that pickle as a NumPy array of Python 2's time."""

    def __init__(self, rows):
        self.rows = rows

    def __reduce__(self):
        from numpy._core.multiarray import _reconstruct

        return _reconstruct, (np.ndarray, (0,), b"b"), (1, self.rows.shape, np.dtype("u1"), False, self.rows.tobytes())


def _batch(published, name, count):
    """A batch in which pixel (0, 0) is (label, index, 0)."""
    rows = np.random.default_rng(0).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [(7 * index + 2) % len(published.classes) for index in range(count)]
    rows[:, 0], rows[:, 1024], rows[:, 2048] = labels, np.arange(count) % 256, 0
    batch = {"data": Rows(rows), published.labels: labels, "batch_label": name}
    if published is CIFAR100:
        batch["coarse_labels"] = [COARSE[label] for label in labels]
    return pickle.dumps(batch, 4)


def _pickles(published, count=100):
    files = {name: _batch(published, name, count) for name in (*published.train, published.test)}
    return files | {published.meta: pickle.dumps({published.label_names: list(published.classes)}, 4)}


def _unpacked(folder, published, **changes):
    folder.mkdir(parents=True)
    for name, content in (_pickles(published) | changes).items():
        if content is not None:
            (folder / name).write_bytes(content)


def _archive(path, published, monkeypatch):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in _pickles(published).items():
            info = tarfile.TarInfo(f"{published.folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(cifar, "fetch", lambda urls, path, sha256, **_: path)  # this archive has not the published hash


def _picture(label, number, extension):
    pixels = np.full((32, 32, 3), (20 * label, 100 + number, 7), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "JPEG", "png": "PNG"}[extension], quality=75)
    return file.getvalue()


def _pictures(extension):
    """Two training pictures and one test picture a class, in no order."""
    return {
        f"{split}/{name}/{number:04}.{extension}": _picture(label, number, extension)
        for split, numbers in (("train", (1, 0)), ("test", (2,)))
        for label, name in reversed(list(enumerate(CIFAR10_CLASSES)))
        for number in numbers
    }


def _folders(root, extension):
    for name, content in _pictures(extension).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def _tars(root, extension):
    root.mkdir(parents=True)
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}.tar", "w") as tar:
            for name, content in _pictures(extension).items():
                if name.startswith(split):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("published", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
@pytest.mark.parametrize("place", ["own", "data_dir", "files", "archive", "archive in data_dir"])
def test_the_published_pickles_are_read_wherever_they_lie(tmp_path, monkeypatch, published, place):
    own = tmp_path / published.name
    if place.startswith("archive"):
        _archive((own if place == "archive" else tmp_path) / published.archive, published, monkeypatch)
    else:
        _unpacked({"own": own / published.folder, "data_dir": tmp_path / published.folder, "files": own}[place], published)
    splits = read_cifar(tmp_path, published)
    assert splits.edition == ""
    assert splits.train_images.shape == (100 * len(published.train), 3, 32, 32)
    assert splits.test_images.shape == (100, 3, 32, 32)
    for images, labels in (splits[:2], splits[2:4]):
        assert labels.dtype == torch.int64
        assert torch.equal(images[:, 0, 0, 0], labels.to(torch.uint8))  # red first, row by row
        assert torch.equal(images[:, 1, 0, 0].long(), torch.arange(len(labels)) % 100)
        assert (images[:, 2, 0, 0] == 0).all()


def test_the_superclasses_of_cifar100_are_kept_in_the_cache_too(tmp_path):
    _unpacked(tmp_path / CIFAR100.folder, CIFAR100)
    for _ in range(2):
        assert read_cifar(tmp_path, CIFAR100).groups.tolist() == COARSE


def test_a_class_in_two_superclasses_is_no_cifar100(tmp_path):
    batch = {"data": Rows(np.zeros((2, 3072), np.uint8)), "fine_labels": [1, 1], "coarse_labels": [3, 4]}
    _unpacked(tmp_path / CIFAR100.folder, CIFAR100, train=pickle.dumps(batch, 4))
    with pytest.raises(DataError, match="two superclasses"):
        read_cifar(tmp_path, CIFAR100)


@pytest.mark.parametrize("make", [_folders, _tars])
@pytest.mark.parametrize(
    ("extension", "edition"),
    [
        ("png", ""),
        ("jpg", "CIFAR-10, JPEG edition (quality 75): not comparable with published accuracies"),
    ],
)
def test_class_folders_are_read_in_order_and_jpegs_are_an_edition(tmp_path, make, extension, edition):
    make(tmp_path / "cifar10", extension)
    for _ in range(2):  # the second time from the cache
        splits = read_cifar(tmp_path, CIFAR10)
        assert splits.edition == edition
        assert splits.train_labels.tolist() == [label for label in range(10) for _ in range(2)]
        assert splits.test_labels.tolist() == list(range(10))
        near = torch.stack([20 * splits.train_labels, torch.tensor([100, 101] * 10)], 1)
        assert (splits.train_images[:, :2, 16, 16].int() - near).abs().max() <= (0 if extension == "png" else 3)


@pytest.mark.parametrize("quality", [25, 50, 75, 90])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality):
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG", quality=quality)
    assert abs(cifar._jpeg_quality(Image.open(file).quantization) - quality) <= 1


def test_the_published_pixels_go_before_pictures_and_before_a_cache_of_them(tmp_path):
    _folders(tmp_path / "cifar10", "jpg")
    assert read_cifar(tmp_path, CIFAR10).edition
    _unpacked(tmp_path / "cifar10" / CIFAR10.folder, CIFAR10)
    assert read_cifar(tmp_path, CIFAR10).edition == ""


def test_the_cache_is_used_and_serves_when_the_source_is_gone(tmp_path, monkeypatch):
    _folders(tmp_path / "cifar10", "jpg")
    first = read_cifar(tmp_path, CIFAR10)
    monkeypatch.setattr(cifar, "_from_pictures", None)  # reading again would fail
    again = read_cifar(tmp_path, CIFAR10)
    for folder in ("train", "test"):
        for path in (tmp_path / "cifar10" / folder).rglob("*.jpg"):
            path.unlink()
        for path in (tmp_path / "cifar10" / folder).iterdir():
            path.rmdir()
    alone = read_cifar(tmp_path, CIFAR10)
    for splits in (again, alone):
        assert torch.equal(splits.train_images, first.train_images)
        assert splits.edition == first.edition


def test_a_read_only_folder_is_cached_elsewhere_and_not_mixed_up(tmp_path, monkeypatch):
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "cache"))
    for number, extension in enumerate(("jpg", "png")):
        root = tmp_path / f"data{number}" / "cifar10"
        _tars(root, extension)
        root.chmod(0o555)
    before = {path: sorted(path.iterdir()) for path in tmp_path.glob("data*/cifar10")}
    editions = [[read_cifar(tmp_path / f"data{number}", CIFAR10).edition for number in range(2)] for _ in range(2)]
    assert editions[0] == editions[1]
    assert "JPEG" in editions[0][0]
    assert editions[0][1] == ""
    assert {path: sorted(path.iterdir()) for path in tmp_path.glob("data*/cifar10")} == before
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_files_or_network_the_message_says_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:  # tests are offline
        read_cifar(tmp_path, CIFAR10)
    for words in ("cifar-10-python.tar.gz", "https://www.cs.toronto.edu/~kriz/", str(tmp_path / "cifar10" / CIFAR10.archive)):
        assert words in str(caught.value)


def test_an_archive_with_another_hash_is_named(tmp_path):
    path = tmp_path / "cifar10" / CIFAR10.archive
    path.parent.mkdir()
    path.write_bytes(b"half of it")
    with pytest.raises(DataError, match="not the published file"):
        read_cifar(tmp_path, CIFAR10)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_batch_with_a_payload_touches_nothing(tmp_path):
    target = tmp_path / "touched"
    _unpacked(tmp_path / CIFAR10.folder, CIFAR10, data_batch_3=pickle.dumps({"data": Touch(target), "labels": []}))
    with pytest.raises(UnsafeError, match="cifar-10-batches-py/data_batch_3"):
        read_cifar(tmp_path, CIFAR10)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("test_batch", {"labels": [1]}, "not what is published"),
        ("test_batch", {"data": Rows(np.zeros((2, 30), np.uint8)), "labels": [1, 2]}, "not what is published"),
        ("batches.meta", {"label_names": ["cat", "dog"]}, "expected the classes"),
    ],
)
def test_pickles_of_something_else_are_named(tmp_path, name, value, words):
    _unpacked(tmp_path / CIFAR10.folder, CIFAR10, **{name: pickle.dumps(value, 4)})
    with pytest.raises(DataError, match=words):
        read_cifar(tmp_path, CIFAR10)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train/cat/9999.jpg", b"no jpeg", "train/cat/9999.jpg is not a readable picture"),
        ("test/dog/9999.png", None, "test/dog/9999.png is not 32x32"),
    ],
)
def test_a_bad_picture_is_named(tmp_path, name, content, words):
    _folders(tmp_path / "cifar10", "png")
    if content is None:
        Image.new("RGB", (31, 32)).save(tmp_path / "cifar10" / name)
    else:
        (tmp_path / "cifar10" / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_cifar(tmp_path, CIFAR10)


def test_the_class_lists_are_complete_and_sorted():
    assert len(set(CIFAR100.classes)) == 100
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)
    assert len(set(CIFAR10.classes)) == 10
