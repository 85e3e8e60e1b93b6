"""Files of tokens: what was written is read, and whatever is not whole or not theirs is told."""

import logging
import multiprocessing
import os
import time

import numpy as np
import pytest

from dlzoo.data import token_files
from dlzoo.data.token_files import HEADER, open_tokens, write_tokens
from dlzoo.errors import DataError, StorageError


def _parts(vocab_size):
    random = np.random.default_rng(0)
    parts = [random.integers(0, vocab_size, count) for count in (5, 0, 300, 1)]
    return [*parts, np.array([0, vocab_size - 1])]


@pytest.mark.parametrize("vocab_size", [65, 65_536, 65_537, 200_000])
def test_what_was_written_is_read(tmp_path, vocab_size):
    parts = _parts(vocab_size)
    path = tmp_path / "new" / "train.tokens"
    assert write_tokens(path, iter(parts), vocab_size) == 308
    tokens = open_tokens(path, vocab_size)
    assert isinstance(tokens, np.memmap) and tokens.dtype.itemsize == (2 if vocab_size <= 65_536 else 4)
    assert tokens.tolist() == np.concatenate(parts).tolist()
    assert [file.name for file in path.parent.iterdir()] == ["train.tokens"]
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_no_tokens_are_a_file_too(tmp_path):
    assert write_tokens(tmp_path / "a.tokens", [], 10) == 0
    assert open_tokens(tmp_path / "a.tokens", 10).shape == (0,)


@pytest.mark.parametrize("part", [[3, 10], [-1, 3]], ids=["above", "below"])
def test_a_token_outside_the_vocabulary_leaves_the_old_file(tmp_path, part):
    path = tmp_path / "a.tokens"
    write_tokens(path, [np.array([1, 2])], 10)
    with pytest.raises(ValueError, match=r"in \[0, 10\)"):
        write_tokens(path, [np.array([5]), np.array(part)], 10)
    assert open_tokens(path, 10).tolist() == [1, 2] and len(list(tmp_path.iterdir())) == 1


def test_what_breaks_off_leaves_nothing(tmp_path):
    def parts():
        yield np.array([1])
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_tokens(tmp_path / "a.tokens", parts(), 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("garbage", [b"", b"half of a part"], ids=["clean", "more than was noted"])
def test_what_was_interrupted_goes_on(tmp_path, monkeypatch, caplog, garbage):
    """The parts that are noted are not encoded again, what was written after the note is, and the file is the same."""
    monkeypatch.setattr(token_files, "SAVE", 0.0)
    caplog.set_level(logging.INFO)
    encoded = []

    def encode(text, fails_at=None):
        if text == fails_at:
            raise KeyboardInterrupt
        encoded.append(text)
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    texts, path = ["one", "", "three", "four", "five"], tmp_path / "a.tokens"
    with pytest.raises(KeyboardInterrupt):
        write_tokens(path, texts, 256, lambda text: encode(text, "four"), of=5)
    assert encoded == texts[:3] and not path.exists()
    assert "3 of 5 parts, 8 tokens" in caplog.text
    with open(tmp_path / ".a.tokens.part", "ab") as file:
        file.write(garbage)
    assert write_tokens(path, texts, 256, encode) == 16
    assert encoded == texts and "going on after 3 parts, 8 tokens" in caplog.text
    assert bytes(open_tokens(path, 256)[:].astype(np.uint8)).decode() == "".join(texts)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tokens"]


@pytest.mark.parametrize("note", ["", "{}", '{"parts": 9, "tokens": 99, "width": 2, "vocab_size": 256}'])
def test_a_note_that_tells_nothing_true_is_passed_over(tmp_path, note):
    (tmp_path / ".a.tokens.part").write_bytes(b"short")
    (tmp_path / ".a.tokens.part.json").write_text(note)
    assert write_tokens(tmp_path / "a.tokens", [np.array([1, 2])], 256) == 2
    assert open_tokens(tmp_path / "a.tokens", 256).tolist() == [1, 2] and len(list(tmp_path.iterdir())) == 1


def _slow(path, count):
    def parts():
        for value in range(count):
            time.sleep(0.1)
            yield np.array([value])

    write_tokens(path, parts(), 10)


def test_of_two_processes_one_writes_and_the_other_waits(tmp_path):
    path = tmp_path / "a.tokens"
    other = multiprocessing.get_context("fork").Process(target=_slow, args=(path, 6))
    other.start()
    while not (tmp_path / ".a.tokens.part").is_file():
        time.sleep(0.01)
    time.sleep(0.1)
    assert write_tokens(path, [np.array([9])], 10) == 6  # what the other wrote
    other.join()
    assert open_tokens(path, 10).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_tokens(tmp_path / "a.tokens", [np.array([1])], 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda content: content[:-1], "need"),
        (lambda content: content + b"\0\0", "need"),
        (lambda content: content[:20], "no file of tokens"),
        (lambda content: b"PK" + content[2:], "no file of tokens"),
        (lambda content: content[:8] + b"\2" + content[9:], "format 2"),
        (lambda content: content[:16] + b"\x0b" + content[17:], "vocabulary of 11"),
    ],
    ids=["short", "long", "header", "magic", "format", "vocabulary"],
)
def test_a_file_that_is_not_whole_or_not_theirs_is_told(tmp_path, change, match):
    path = tmp_path / "a.tokens"
    write_tokens(path, [np.arange(10)], 10)
    assert path.stat().st_size == HEADER.size + 20
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=match):
        open_tokens(path, 10)
    with pytest.raises(DataError, match="No such file"):
        open_tokens(tmp_path / "b.tokens", 10)
