"""Reads the idx files of MNIST and its kin: a magic number, the extents, then bytes.

Source: LeCun, Cortes, Burges, "The MNIST database", http://yann.lecun.com/exdb/mnist/ (the format is at its end).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from dlzoo.errors import DataError

__all__ = ["read_idx"]

UNSIGNED_BYTE = 0x08
LARGEST = 1 << 31  # bytes; MNIST has 47 million


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The bytes of an idx file, packed with gzip (.gz) or not.

    Args:
        path: of the file.
        dimensions: that it must have: 3 for images, 1 for labels.

    Returns:
        uint8, of the extents that the file states.

    Raises:
        DataError: the file is missing, damaged, of another type or number of dimensions, or longer or shorter than it says.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            zero, kind, rank = struct.unpack(">HBB", file.read(4))
            if zero != 0 or kind != UNSIGNED_BYTE or rank != dimensions:
                raise ValueError(f"its head says type {kind:#04x} and {rank} dimensions, expected 0x08 and {dimensions}")
            extents = struct.unpack(f">{rank}I", file.read(4 * rank))
            size = math.prod(extents)
            if not 0 < size <= LARGEST:
                raise ValueError(f"its head promises {size} bytes")
            data = file.read(size)
            more = file.read(1)  # reading to the end also checks the checksum of a .gz
            if len(data) != size or more:
                raise ValueError(f"its head promises {size} bytes, and there are {'more' if more else len(data)}")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.", where=str(path)) from None
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        fix = f"delete {path}; the next run fetches it again"
        raise DataError(f"{path.name} is damaged ({error}).", where=str(path), fix=fix) from error
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(extents)
