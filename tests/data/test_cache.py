"""The cache of decoded data: whole, keyed by its source, and never a reason to stop."""

import os

import pytest
import torch

from dlzoo.data.cache import any_cached, cached, fingerprint
from dlzoo.data.splits import Splits


def _splits(edition="", groups=None):
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    return Splits(images, torch.arange(4), images[:2].clone(), torch.arange(2), groups=groups, edition=edition)


def _unread():
    raise AssertionError("the source was read")


@pytest.mark.parametrize("groups", [None, torch.tensor([1, 0])])
def test_what_was_kept_comes_back(tmp_path, groups):
    kept = cached(tmp_path, "set", "key", lambda: _splits("an edition", groups))
    found = cached(tmp_path, "set", "key", _unread)
    assert found.edition == kept.edition == "an edition"
    for one, other in zip(found[:5], kept[:5], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["dlzoo-set-key.safetensors"]
    assert next(tmp_path.iterdir()).stat().st_mode & 0o777 == 0o666 & ~_umask()  # others read it too


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_another_key_is_another_cache(tmp_path):
    cached(tmp_path, "set", "one", lambda: _splits("one"))
    assert cached(tmp_path, "set", "two", lambda: _splits("two")).edition == "two"


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-5], lambda data: b"x" * len(data)])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    cached(tmp_path, "set", "key", _splits)
    path = tmp_path / "dlzoo-set-key.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert any_cached(tmp_path, "set") is None
    assert torch.equal(cached(tmp_path, "set", "key", _splits).train_images, _splits().train_images)
    cached(tmp_path, "set", "key", _unread)


def test_a_place_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    data, home = tmp_path / "data", tmp_path / "home"
    data.mkdir(mode=0o555)
    monkeypatch.setenv("DLZOO_CACHE", str(home))
    cached(data, "set", "key", _splits)
    assert not list(data.iterdir())
    assert [path.name for path in home.iterdir()] == ["dlzoo-set-key.safetensors"]
    cached(data, "set", "key", _unread)


def test_no_place_at_all_is_no_reason_to_stop(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir(mode=0o555)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert cached(data, "set", "key", _splits).train_labels.tolist() == [0, 1, 2, 3]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(os, "fsync", full)
    cached(tmp_path, "set", "key", _splits)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_fingerprint_is_that_of_the_files(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    prints = [fingerprint("kind", [path]), fingerprint("kind", [path]), fingerprint("other", [path])]
    path.write_bytes(b"three")
    prints.append(fingerprint("kind", [path]))
    (tmp_path / "copy").write_bytes(b"three")
    prints.append(fingerprint("kind", [tmp_path / "copy"]))
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
