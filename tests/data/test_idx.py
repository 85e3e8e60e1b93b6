"""idx files: big-endian head, then bytes; every fault of the head is named."""

import gzip
import struct

import pytest
import torch

from dlzoo.data.idx import read_idx
from dlzoo.errors import DataError


def _idx(*extents, kind=8, data=None, zero=0):
    size = 1
    for extent in extents:
        size *= extent
    body = bytes(i % 256 for i in range(size)) if data is None else data
    return struct.pack(f">HBB{len(extents)}I", zero, kind, len(extents), *extents) + body


@pytest.mark.parametrize("packed", [False, True])
def test_images_and_labels_are_read(tmp_path, packed):
    for extents in ((3, 4, 5), (7,)):
        path = tmp_path / f"file{len(extents)}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(_idx(*extents)) if packed else _idx(*extents))
        data = read_idx(path, len(extents))
        assert data.dtype == torch.uint8
        assert torch.equal(data, torch.arange(data.numel(), dtype=torch.uint8).view(extents))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"\0\0\x08", "damaged"),
        (_idx(3, 4, 5, zero=1), "0x08 and 3"),
        (_idx(3, 4, 5, kind=0x0D), "type 0x0d and 3 dimensions"),
        (_idx(7), "type 0x08 and 1 dimensions"),
        (_idx(3, 4, 5, data=b"1234"), "promises 60 bytes, and there are 4"),
        (_idx(3, 4, 5, data=b"1" * 61), "promises 60 bytes, and there are more"),
        (_idx(0, 4, 5, data=b""), "promises 0 bytes"),
        (_idx(1, 1, 1, data=b"")[:4] + b"\xff" * 12, "promises"),
        (_idx(3, 4, 5)[:10], "damaged"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_fault_names_the_file(tmp_path, content, words, packed):
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path, 3)
    assert caught.value.where == str(path)


def test_a_torn_or_altered_gz_is_damaged(tmp_path):
    path = tmp_path / "images.gz"
    whole = gzip.compress(_idx(30, 40, 50))
    altered = bytearray(whole)
    altered[-6] ^= 1  # the checksum
    for content in (whole[:-20], bytes(altered), b"no gzip"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is damaged"):
            read_idx(path, 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_idx(tmp_path / "images", 3)
