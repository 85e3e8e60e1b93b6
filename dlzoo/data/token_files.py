"""Files of tokens that are mapped into memory: of a corpus larger than the machine's memory, only what a batch reads is there.

A file is a header of 32 bytes and then the tokens, as 2 bytes each where the vocabulary fits into those and as 4 otherwise,
the least significant byte first. It is written under another name, and gets its own when it is whole and on the disk. Beside
it lies, now and then, how far it is: whoever is interrupted goes on from there.
"""

import contextlib
import json
import logging
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dlzoo.disk import sync_folder
from dlzoo.errors import DataError, StorageError

__all__ = ["open_tokens", "write_tokens"]

MAGIC = b"dlzootok"
FORMAT = 1
HEADER = struct.Struct("<8sIIQQ")  # magic, format, bytes a token, size of the vocabulary, number of tokens
SAVE = 10.0  # seconds between two notes of how far it is; no more than that is done twice

_log = logging.getLogger(__name__)


def write_tokens(
    path: Path, parts: Iterable[Any], vocab_size: int, encode: Callable[[Any], np.ndarray] = np.asarray, of: int | None = None
) -> int:
    """Writes tokens as they come. Interrupted and called again with the same parts, it goes on where it was.

    Several processes may be told to write the same file: one does, the others wait for it.

    Args:
        path: the file; one that is there is replaced when the new one is whole.
        parts: texts, or whatever `encode` takes, in their order.
        vocab_size: tokens are below it.
        encode: a part -> its tokens, (N,) of integers; parts that are done already are not encoded again.
        of: how many parts there are, for what is said on the way.

    Returns:
        how many tokens were written, in all.

    Raises:
        ValueError: a token is outside the vocabulary.
        StorageError: the disk is full, or the folder can not be written.
    """
    width = 2 if vocab_size <= 1 << 16 else 4
    partial = path.with_name(f".{path.name}.part")
    note = path.with_name(f".{path.name}.part.json")
    saved = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial) as file:
            if file is None:  # another process has written it
                saved = True  # and nothing here is to be cleared away
                return len(open_tokens(path, vocab_size))
            done, count = _noted(note, file, width, vocab_size)
            saved = bool(done)
            if done:
                _log.info("%s: going on after %s parts, %s tokens", path.name, f"{done:,}", f"{count:,}")
            file.truncate(HEADER.size + width * count)
            file.seek(0, os.SEEK_END)
            began = last = time.monotonic()
            first = count
            for part in islice(parts, done, None):
                tokens = encode(part)
                if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
                    raise ValueError(f"tokens must be in [0, {vocab_size}), got {tokens.min()} to {tokens.max()}")
                file.write(np.asarray(tokens, dtype=f"<u{width}").tobytes())
                done, count = done + 1, count + len(tokens)
                if (now := time.monotonic()) - last >= SAVE:
                    file.flush()
                    os.fsync(file.fileno())
                    _write_note(note, {"parts": done, "tokens": count, "width": width, "vocab_size": vocab_size})
                    saved, last, speed = True, now, (count - first) / (now - began)
                    whole = f" of {of:,}" if of else ""
                    _log.info(
                        "%s: %s%s parts, %s tokens, %s a second", path.name, f"{done:,}", whole, f"{count:,}", f"{speed:,.0f}"
                    )
            file.seek(0)
            file.write(HEADER.pack(MAGIC, FORMAT, width, vocab_size, count))
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        note.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        safe = "what is written; the same command goes on from there" if saved else ""
        raise StorageError(
            f"{path.name} could not be written: {error.strerror}",
            where=str(path.parent),
            safe=safe,
            fix="free some space there",
        ) from error
    except ValueError:
        saved = False
        raise
    finally:
        if not saved:
            for leftover in (partial, note):
                with contextlib.suppress(OSError):
                    leftover.unlink()
    return count


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[BinaryIO | None]:
    """The file that is being written, once no other process does; None where another has finished it meanwhile."""
    while True:
        with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            waited = _lock(file, partial)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), partial.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield file
                return
        if waited and partial.with_name(partial.name[1:].removesuffix(".part")).is_file():
            yield None
            return


def _lock(file: BinaryIO, partial: Path) -> bool:
    """Waits until no other process holds it; whether one did. Where the system has no such locks, nothing is waited for."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("%s: another process writes it; waiting", partial.name)
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    return False


def _noted(note: Path, file: BinaryIO, width: int, vocab_size: int) -> tuple[int, int]:
    """How many parts and tokens are in the file for certain; none where the note is missing or of something else."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        whole = os.fstat(file.fileno()).st_size >= HEADER.size + width * found["tokens"]
        if whole and (found["width"], found["vocab_size"]) == (width, vocab_size):
            return int(found["parts"]), int(found["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, 0


def _write_note(note: Path, content: dict[str, int]) -> None:
    temporary = note.with_name(f"{note.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, note)


def open_tokens(path: Path, vocab_size: int) -> np.ndarray:
    """The tokens of a file, mapped and not read: (N,), of unsigned integers.

    Args:
        path: what `write_tokens` wrote.
        vocab_size: of the tokenizer that is in use; must be the one that the file was written with.

    Raises:
        DataError: the file is missing, cut short, no file of tokens, or of another vocabulary.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path.name} can not be read: {error.strerror}", where=str(path)) from error
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise DataError(f"{path.name} is no file of tokens", where=str(path))
    _, version, width, vocabulary, count = HEADER.unpack(head)
    again = "delete it: it is written again"
    if version != FORMAT or width not in (2, 4):
        raise DataError(f"{path.name} is of format {version}, and {FORMAT} is read", where=str(path), fix=again)
    if vocabulary != vocab_size:
        raise DataError(f"{path.name} has a vocabulary of {vocabulary} tokens, not of {vocab_size}", where=str(path), fix=again)
    if size != HEADER.size + width * count:
        raise DataError(
            f"{path.name} has {size:,} bytes, and its {count:,} tokens need {HEADER.size + width * count:,}",
            where=str(path),
            fix=again,
        )
    if not count:  # nothing can not be mapped
        return np.zeros(0, dtype=f"<u{width}")
    return np.memmap(path, dtype=f"<u{width}", mode="r", offset=HEADER.size, shape=(count,))
