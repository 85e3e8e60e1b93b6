"""MNIST and Fashion-MNIST: the published files, and where they are looked for."""

import gzip
import hashlib
import struct

import pytest
import torch

from dlzoo.datamodules import mnist
from dlzoo.datamodules.mnist import FILES, FashionMnist, Mnist
from dlzoo.errors import DataError

BOTH = pytest.mark.parametrize(("kind", "folder"), [(Mnist, "mnist"), (FashionMnist, "fashion_mnist")])


@BOTH
def test_the_published_data(data_dir, kind, folder):
    data = kind(data_dir)
    splits = data.splits
    assert splits.train_images.shape == (60_000, 1, 28, 28)
    assert splits.test_images.shape == (10_000, 1, 28, 28)
    pixels = splits.train_images.double() / 255
    assert abs(pixels.mean() - data.mean[0]) < 5e-5
    assert abs(pixels.std(correction=0) - data.std[0]) < 5e-5
    if kind is FashionMnist:
        assert splits.train_labels.bincount().tolist() == [6_000] * 10
    else:
        assert splits.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    for name, sha256 in zip(FILES, kind.sha256, strict=True):
        assert hashlib.sha256((data_dir / folder / f"{name}.gz").read_bytes()).hexdigest() == sha256


def _idx(*extents, fill=0):
    size = 1
    for extent in extents:
        size *= extent
    return struct.pack(f">HBB{len(extents)}I", 0, 8, len(extents), *extents) + bytes([fill]) * size


def _files(folder, packed):
    folder.mkdir(parents=True)
    for name, count in zip(FILES, (12, 12, 6, 6), strict=True):
        content = _idx(count, 28, 28, fill=9) if "images" in name else _idx(count, fill=3)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", [Mnist, FashionMnist])
@pytest.mark.parametrize("place", [0, 1])
def test_files_are_found_packed_or_not_ours_or_torchvisions(tmp_path, monkeypatch, kind, place, packed):
    monkeypatch.setattr(kind, "published", (12, 6))
    _files(tmp_path / kind.folders[place], packed)
    data = kind(tmp_path, val_size=2, batch_size=5)
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (5, 1, 28, 28)
    assert y.tolist() == [3] * 5
    assert (data.splits.test_images == 9).all()


@BOTH
def test_a_missing_file_names_its_addresses_and_place(tmp_path, kind, folder):
    with pytest.raises(DataError) as caught:  # tests are offline
        kind(tmp_path).prepare_data()
    for words in (f"{FILES[0]}.gz", *kind.mirrors, str(tmp_path / folder / f"{FILES[0]}.gz")):
        assert words in str(caught.value)


def test_a_missing_file_is_fetched_with_its_hash(tmp_path, monkeypatch):
    asked = []

    def fetch(urls, path, sha256):
        asked.append((urls, path, sha256))
        content = _idx(12 if "train" in path.name else 6, *((28, 28) if "images" in path.name else ()))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content))
        return path

    monkeypatch.setattr(mnist, "fetch", fetch)
    monkeypatch.setattr(Mnist, "published", (12, 6))
    data = Mnist(tmp_path, val_size=2)
    data.prepare_data()
    assert [sha256 for _, _, sha256 in asked] == list(Mnist.sha256)
    assert all(url.startswith("https://") and url.endswith(".gz") for urls, _, _ in asked for url in urls)
    again = Mnist(tmp_path, val_size=2)
    again.prepare_data()
    assert len(asked) == 4  # nothing twice
    assert torch.equal(again.splits.test_images, data.splits.test_images)


def test_a_digit_is_not_mirrored_and_clothes_are():
    assert not Mnist().augment.flip
    assert FashionMnist().augment.flip
    assert Mnist().augment.crop_padding == FashionMnist().augment.crop_padding == 2
