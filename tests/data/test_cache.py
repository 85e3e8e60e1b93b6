"""The cache of decoded data: whole, keyed by its source, and never a reason to stop."""

import json
import os
import pickle
import random
import time
import tracemalloc

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


# --- files that lie


def _header(text, length=None, tail=b""):
    content = text if isinstance(text, bytes) else json.dumps(text).encode()
    return (len(content) if length is None else length).to_bytes(8, "little") + content + tail


def _tensor(start=0, end=4, dtype="U8", shape=(4,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


_FOUR = b"\x00\x01\x02\x03"
HOSTILE = {
    "nothing": b"",
    "seven bytes": b"\x01" * 7,
    "a header longer than the file": _header({}, length=1 << 40),
    "a header of 18 exabytes": _header({}, length=(1 << 64) - 1),
    "a header that is no JSON": _header(b"{]"),
    "a header that is a list": _header([]),
    "a header that is not UTF-8": _header(b"\xff\xfe{}"),
    "a header nested a thousand deep": _header(b'{"x":' * 1000 + b"1" + b"}" * 1000),
    "the same key twice": _header(b'{"labels":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"labels":1}', tail=_FOUR),
    "offsets outside the file": _header({"train_images": _tensor(0, 1 << 40)}, tail=_FOUR),
    "offsets backwards": _header({"train_images": _tensor(4, 0)}, tail=_FOUR),
    "negative offsets": _header({"train_images": _tensor(-4, 0)}, tail=_FOUR),
    "a shape that does not fit its bytes": _header({"train_images": _tensor(shape=(1 << 40,))}, tail=_FOUR),
    "a shape that overflows": _header({"train_images": _tensor(shape=(1 << 32, 1 << 32, 1 << 32))}, tail=_FOUR),
    "tensors that overlap": _header({"a": _tensor(0, 4), "b": _tensor(0, 4)}, tail=_FOUR),
    "a hole between tensors": _header({"a": _tensor(0, 1, shape=(1,)), "b": _tensor(3, 4, shape=(1,))}, tail=_FOUR),
    "bytes behind the last tensor": _header({"train_images": _tensor()}, tail=_FOUR + b"more"),
    "a type that is none": _header({"train_images": _tensor(dtype="EVIL")}, tail=_FOUR),
    "metadata that is no text": _header({"__metadata__": {"edition": {"x": 1}}, "train_images": _tensor()}, tail=_FOUR),
    "tensors of other names": _header({"__class__": _tensor()}, tail=_FOUR),
    "too few tensors": _header({"train_images": _tensor()}, tail=_FOUR),
    "a pickle": pickle.dumps({"train_images": [1]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_made_again_at_once(tmp_path, name):
    path = tmp_path / "dlzoo-set-key.safetensors"
    path.write_bytes(HOSTILE[name])
    started = time.process_time()
    tracemalloc.start()
    try:
        found = cached(tmp_path, "set", "key", lambda: _splits("made again"))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert found.edition == "made again" and time.process_time() - started < 1
    assert cached(tmp_path, "set", "key", _unread).edition == "made again"


def test_random_damage_never_raises_and_never_passes_for_another_shape(tmp_path):
    """A thousand files with a few bytes changed in the header: read as they were or made again."""
    cached(tmp_path, "set", "key", lambda: _splits("whole"))
    path = tmp_path / "dlzoo-set-key.safetensors"
    whole, rng = path.read_bytes(), random.Random(0)
    length = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(1000):
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(length)] = rng.randrange(256)
        path.write_bytes(changed)
        found = any_cached(tmp_path, "set")
        if found is not None:
            assert sum(tensor.numel() * tensor.element_size() for tensor in found[:5] if tensor is not None) <= len(whole)
