"""Reads the pickles that CIFAR is published in, and runs nothing that they say.

A pickle is a program. The ones in question only build dicts, lists, bytes, numbers and NumPy byte arrays; the three NumPy names
that they call are replaced by inert stand-ins that note what they are given, and every other name is refused.

Note: the pickles are of Python 2, whose strings arrive as bytes.
"""

import io
import pickle
from typing import Any

import torch
from torch import Tensor

from dlzoo.errors import DataError, UnsafeError

__all__ = ["unpickle"]


def unpickle(content: bytes, where: str) -> dict[str, Any]:
    """The dict in a pickle of plain values and NumPy byte arrays; arrays become uint8 tensors, keys become text.

    Args:
        content: of the file.
        where: the file, for messages.

    Raises:
        UnsafeError: the pickle names something else than a NumPy array; nothing was run.
        DataError: it is damaged, or holds something else than a dict.
    """
    try:
        value = _Reader(io.BytesIO(content), where).load()
        if not isinstance(value, dict):
            raise TypeError(f"expected a dict, got {type(value).__name__}")
        return {_text(key): _plain(item) for key, item in value.items()}
    except (UnsafeError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        fix = "get the file again from where it is published"
        raise DataError(f"{where} is damaged ({type(error).__name__}: {error}).", where=where, fix=fix) from error


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self.where = where
        # New classes for each pickle: what one of them does to them cannot reach the next.
        self.array = type("Array", (_Noted,), {})
        self.dtype = type("Dtype", (_Noted,), {})

    def find_class(self, module: str, name: str) -> type:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return self.array  # _reconstruct(ndarray, shape, type): an empty array, whose state follows
        if (module, name) == ("numpy", "ndarray"):
            return self.array
        if (module, name) == ("numpy", "dtype"):
            return self.dtype
        raise UnsafeError(
            f"{self.where} is refused: it asks to run {module}.{name}.",
            where=self.where,
            safe="nothing in it was run",
            fix="delete the file and get it from where it is published",
        )


class _Noted:
    """Stands in for a NumPy object: keeps what the pickle says about it."""

    def __init__(self, *args: Any) -> None:
        self.args: tuple = args
        self.state: tuple = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _plain(value: Any) -> Any:
    """bytes -> text, byte arrays -> tensors, in lists too."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, _Noted):
        return _tensor(value)
    return _text(value) if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _tensor(array: _Noted) -> Tensor:
    _version, shape, dtype, is_fortran, data = array.state
    if dtype.args[0] not in (b"u1", "u1", b"|u1", "|u1") or is_fortran or not isinstance(data, bytes):
        raise TypeError(f"expected an array of bytes in C order, got type {dtype.args[0]!r}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(shape)
