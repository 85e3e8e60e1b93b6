"""CIFAR-10 and CIFAR-100 as data modules; reading them is tested in tests/data/test_cifar.py."""

import pytest
import torch

from dlzoo.data.splits import Splits
from dlzoo.datamodules import cifar
from dlzoo.datamodules.cifar import CIFAR100_SUPERCLASSES, Cifar10, Cifar100


@pytest.mark.slow
def test_the_jpeg_edition(data_dir, tmp_path, monkeypatch):
    """60,000 pictures from the tars, decoded once: the second time takes milliseconds."""
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path))
    data = Cifar10(data_dir)
    splits = data.splits
    assert splits.train_labels.bincount().tolist() == [5_000] * 10
    assert splits.test_labels.bincount().tolist() == [1_000] * 10
    assert data.edition == "CIFAR-10, JPEG edition (quality 75): not comparable with published accuracies"
    # the statistics that the folder's README measured for this edition
    pixels = splits.train_images.float() / 255
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor([0.4913, 0.4821, 0.4465]), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        pixels.transpose(0, 1).flatten(1).std(1), torch.tensor([0.2452, 0.2428, 0.2606]), rtol=0, atol=1e-4
    )
    again = Cifar10(data_dir).splits
    assert torch.equal(again.train_images, splits.train_images)
    assert again.edition == splits.edition


def _small(kind, groups=None):
    images = torch.zeros(20, 3, 32, 32, dtype=torch.uint8)
    labels = torch.arange(20) % len(kind.classes)
    return Splits(images, labels, images[:10], labels[:10], groups=groups)


@pytest.mark.parametrize(("kind", "name"), [(Cifar10, "cifar10"), (Cifar100, "cifar100")])
def test_the_module_reads_its_own_publication(tmp_path, monkeypatch, kind, name):
    asked = []
    monkeypatch.setattr(cifar, "read_cifar", lambda folder, published: asked.append((folder, published.name)) or _small(kind))
    monkeypatch.setattr(kind, "published", (20, 10))
    data = kind(tmp_path, val_size=4, batch_size=8)
    x, _ = next(iter(data.train_dataloader()))
    assert asked == [(tmp_path, name)]
    assert x.shape == (8, 3, 32, 32)
    assert data.augment.crop_padding == 4
    assert data.augment.flip


def test_the_defaults_are_the_cut_of_the_resnet_paper():
    for kind in (Cifar10, Cifar100):
        assert kind().train_size == 45_000
        assert kind().val_size == 5_000
        assert kind.published[1] == 10_000


def test_the_superclasses_are_known_after_reading(monkeypatch):
    assert len(set(CIFAR100_SUPERCLASSES)) == 20
    assert list(CIFAR100_SUPERCLASSES) == sorted(CIFAR100_SUPERCLASSES)
    monkeypatch.setattr(cifar, "read_cifar", lambda *_: _small(Cifar100, groups=torch.arange(100) // 5))
    monkeypatch.setattr(Cifar100, "published", (20, 10))
    data = Cifar100(val_size=4)
    data.setup()
    assert data.superclass_of == tuple(index // 5 for index in range(100))
