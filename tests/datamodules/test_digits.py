"""Digits: scikit-learn's file, read without importing scikit-learn."""

import builtins
import gzip
import hashlib

import pytest
import torch

from dlzoo.datamodules import digits
from dlzoo.datamodules.digits import Digits
from dlzoo.errors import DataError

# of training images and labels, test images and labels; and the first labels that validate
CUT = ["3faa2351405c", "18c6b6698676", "de958ee236ab", "a9067d8fced7"]
VALIDATION = [2, 5, 9, 3, 5, 3, 9, 4, 5, 6, 2, 0]


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = Digits()
    splits = data.splits
    assert len(splits.train_labels) == 1437
    assert len(splits.test_labels) == 360
    assert data.train_size == 1257
    theirs = load_digits()
    want = sorted(zip(theirs.images.reshape(-1, 64).tolist(), theirs.target.tolist(), strict=True))
    images = torch.cat([splits.train_images, splits.test_images]).view(-1, 64)
    assert images.max() == 255
    sixteenths = (images.double() * 16 / 255).round()
    labels = torch.cat([splits.train_labels, splits.test_labels])
    assert sorted(zip(sixteenths.tolist(), labels.tolist(), strict=True)) == want


def test_mean_and_std_are_those_of_the_training_images():
    data = Digits()
    pixels = data.splits.train_images.double() / 255
    assert abs(pixels.mean() - data.mean[0]) < 5e-5
    assert abs(pixels.std(correction=0) - data.std[0]) < 5e-5


def test_the_cut_stays_as_it_is():
    """Results are compared across versions: the same 360 digits test, the same 180 validate."""
    data = Digits()
    hashes = [hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:12] for tensor in data.splits[:4]]
    assert hashes == CUT
    assert torch.cat([y for _, y in data.val_dataloader()])[:12].tolist() == VALIDATION


def test_batches():
    x, y = next(iter(Digits().train_dataloader()))
    assert (x.shape, y.shape) == ((64, 1, 8, 8), (64,))
    assert len(Digits().train_dataloader()) == 1257 // 64


def test_scikit_learn_is_not_imported(monkeypatch):
    imported, plain = [], builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: imported.append(name) or plain(name, *rest))
    Digits().setup()
    assert not [name for name in imported if name.startswith("sklearn")]


def test_without_scikit_learn_a_file_of_ones_own_serves(tmp_path, monkeypatch):
    content = digits._digits_file(tmp_path).read_bytes()
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="come with scikit-learn") as caught:
        Digits(tmp_path).setup()
    assert caught.value.fix == "pip install scikit-learn"
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "digits.csv.gz").write_bytes(content)
    assert len(Digits(tmp_path).splits.train_labels) == 1437


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), gzip.compress(b"a,b\n", mtime=0)]
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "digits" / "digits.csv.gz"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match="digits cannot be read") as caught:
        Digits(tmp_path).setup()
    assert caught.value.where == str(path)
