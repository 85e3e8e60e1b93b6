"""Files of tokens that are mapped into memory: of a corpus larger than the machine's memory, only what a batch reads is there.

A file is a header of 32 bytes and then the tokens, as 2 bytes each where the vocabulary fits into those and as 4 otherwise,
the least significant byte first. It is written under another name, and gets its own when it is whole and on the disk.
"""

import contextlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dlzoo.disk import sync_folder
from dlzoo.errors import DataError, StorageError

__all__ = ["open_tokens", "write_tokens"]

MAGIC = b"dlzootok"
FORMAT = 1
HEADER = struct.Struct("<8sIIQQ")  # magic, format, bytes a token, size of the vocabulary, number of tokens


def write_tokens(path: Path, parts: Iterable[np.ndarray], vocab_size: int) -> int:
    """Writes tokens as they come.

    Args:
        path: the file; one that is there is replaced when the new one is whole.
        parts: tokens, (N,) of integers each, in their order.
        vocab_size: tokens are below it.

    Returns:
        how many tokens were written.

    Raises:
        ValueError: a token is outside the vocabulary.
        StorageError: the disk is full, or the folder can not be written.
    """
    width = 2 if vocab_size <= 1 << 16 else 4
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(bytes(HEADER.size))
            for part in parts:
                if len(part) and not 0 <= part.min() <= part.max() < vocab_size:
                    raise ValueError(f"tokens must be in [0, {vocab_size}), got {part.min()} to {part.max()}")
                file.write(np.asarray(part, dtype=f"<u{width}").tobytes())
                count += len(part)
            file.seek(0)
            file.write(HEADER.pack(MAGIC, FORMAT, width, vocab_size, count))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path.name} could not be written: {error.strerror}", where=str(path.parent)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return count


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
