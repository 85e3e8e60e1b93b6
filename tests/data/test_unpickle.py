"""The pickles of CIFAR are read, and nothing in any pickle is run."""

import os
import pickle
import subprocess

import numpy as np
import pytest
import torch

from dlzoo.data.unpickle import unpickle
from dlzoo.errors import DataError, UnsafeError


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_batch_of_the_published_form_is_read(protocol):
    rows = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    if protocol in (0, 2):  # as Python 2 writes it: strings are bytes, and so arrive under bytes keys
        content = _python2_pickle(rows, [3, 1, 4, 1])
    else:
        plain = {"data": _Bytes(rows), "labels": [3, 1, 4, 1], b"batch_label": b"batch 1"}
        content = pickle.dumps(plain, protocol)
    batch = unpickle(content, "data_batch_1")
    assert batch["labels"] == [3, 1, 4, 1]
    assert batch["batch_label"] == "batch 1"
    assert torch.equal(batch["data"], torch.from_numpy(rows))


class _Bytes:
    """Pickles like a NumPy array of Python 2's time: _reconstruct, then a state with the bytes."""

    def __init__(self, rows):
        self.rows = rows

    def __reduce__(self):
        from numpy._core.multiarray import _reconstruct

        state = (1, self.rows.shape, np.dtype("u1"), False, self.rows.tobytes())
        return _reconstruct, (np.ndarray, (0,), b"b"), state


def _python2_pickle(rows, labels):
    """The opcodes that Python 2 writes for {'batch_label': 'batch 1', 'labels': [...], 'data': array}."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    minus_one = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN" + 2 * minus_one + b"K\x00tb"
    data = rows.tobytes()
    shape = b"(" + b"".join(b"M" + extent.to_bytes(2, "little") for extent in rows.shape) + b"t"
    state = b"(K\x01" + shape + dtype + b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = text(b"batch_label") + text(b"batch 1") + text(b"labels") + numbers + text(b"data") + array + state
    return b"\x80\x02}(" + items + b"u."


class _Touch:
    """A payload: unpickled in earnest it would run a command that makes a file."""

    def __init__(self, run, *args):
        self.call = run, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("run", [os.system, eval, exec, subprocess.call, getattr, __import__, torch.load])
def test_a_payload_runs_nothing(tmp_path, run, protocol):
    target = tmp_path / "touched"
    program = f"touch {target}" if run in (os.system, subprocess.call) else f"open({str(target)!r}, 'w')"
    content = pickle.dumps({"labels": [1], "data": [_Touch(run, program)]}, protocol)
    with pytest.raises(UnsafeError, match="asks to run") as caught:
        unpickle(content, "data_batch_1")
    assert not target.exists()
    assert caught.value.exit_code == 9
    assert "data_batch_1" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\ncore.multiarray.load\n.",
        b"cnumpy.core.multiarray\nload\n.",
        b"cnumpy\nload\n.",
        b"c__builtin__\neval\n.",
        b"cdlzoo.data.unpickle\nio\n.",
        b"cnumpy\nndarray.__class__\n.",
    ],
)
def test_names_near_the_allowed_ones_are_refused(content):
    with pytest.raises(UnsafeError):
        unpickle(content, "meta")


def test_changing_a_stand_in_does_not_reach_the_next_pickle():
    # BUILD on the class itself sets attributes of it
    nasty = b"\x80\x02cnumpy\nndarray\nN}U\x0c__setstate__K\x01s\x86b."
    with pytest.raises((DataError, UnsafeError)):
        unpickle(nasty, "meta")
    rows = np.zeros((1, 4), np.uint8)
    assert unpickle(_python2_pickle(rows, [0]), "batch")["data"].shape == (1, 4)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2]), pickle.dumps({1: 2})[:-4], b"\x80\x02}(K\x01u."])
def test_a_damaged_pickle_is_named(content):
    with pytest.raises(DataError, match="data_batch_3 is damaged"):
        unpickle(content, "data_batch_3")


@pytest.mark.parametrize("rows", [np.zeros((2, 3), np.float32), np.zeros(2, object), np.zeros((3, 2), np.uint8).T])
def test_only_arrays_of_bytes_are_made(rows):
    with pytest.raises(DataError, match="array of bytes"):
        unpickle(pickle.dumps({"data": _State(rows)}, 4), "data_batch_3")


class _State(_Bytes):
    def __reduce__(self):
        call, args, _ = super().__reduce__()
        rows = self.rows
        data = [1, 2] if rows.dtype == object else rows.tobytes()
        return call, args, (1, rows.shape, rows.dtype, not rows.flags.c_contiguous, data)


def test_a_shape_that_does_not_fit_its_bytes_is_refused():
    rows = np.zeros((2, 3), np.uint8)
    content = _python2_pickle(rows, [0, 1]).replace(b"M\x02\x00M\x03\x00", b"M\x02\x00M\xff\xff")
    with pytest.raises(DataError, match="damaged"):
        unpickle(content, "data_batch_3")
