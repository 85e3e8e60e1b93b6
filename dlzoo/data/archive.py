"""Archives that cannot write outside their folder, nor fill the disk.

Members are checked before a byte of them is written: plain files and folders only, with names that stay inside, and with limits
on their number, their size and how far they unpack. What fails a check is refused, not repaired.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from dlzoo.errors import DataError, StorageError, UnsafeError

__all__ = ["Limits", "extract", "members"]


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Args:
        files: number of members.
        size: bytes in all.
        ratio: bytes unpacked for each byte of the archive; counts above the first 16 MiB.
    """

    files: int = 2_000_000
    size: int = 200 << 30
    ratio: int = 200


_FREE = 16 << 20  # small archives may pack as well as they like: black images do
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 20
_IN_MEMORY = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


def members(archive: Path, limits: Limits = Limits()) -> Iterator[tuple[str, bytes]]:
    """The files of a tar (plain, gz, bz2, xz) or zip, in its order, read into memory one by one; nothing is written.

    Yields:
        name inside the archive and content.

    Raises:
        UnsafeError: a member leaves the folder, is no plain file, or the archive unpacks beyond the limits.
        DataError: the archive is missing or damaged.
    """
    for name, content in _checked(Path(archive), limits):
        yield name, b"".join(content)


def extract(archive: Path, folder: Path, limits: Limits = Limits()) -> Path:
    """Unpacks a tar or zip into a new folder, which appears when everything is in it.

    Args:
        archive: the file.
        folder: must not exist, or be empty.
        limits: what the archive may unpack to.

    Returns:
        folder.

    Raises:
        UnsafeError: as for `members`; nothing is left behind.
        DataError: the archive is missing or damaged, or the folder has something in it.
        StorageError: the folder cannot be written, or is full.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already and is not empty.", where=str(folder), fix=f"move {folder} away")
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        for name, content in _checked(Path(archive), limits):
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as file:  # x: a name that comes twice is refused
                for chunk in content:
                    file.write(chunk)
        partial.chmod(0o755)
        os.replace(partial, folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise UnsafeError(f"{archive} holds the same name twice ({error}).", where=str(archive)) from error
    except OSError as error:
        raise StorageError(f"{archive} cannot be unpacked ({error}).", where=str(folder.parent)) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _checked(archive: Path, limits: Limits) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Name and content of each file; every member's name and kind is checked, and all bytes are counted as they come."""
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}.", where=str(archive))
    budget = _Budget(archive, limits)
    with budget.watched():
        source = _zip_files if zipfile.is_zipfile(archive) else _tar_files
        yield from source(archive, budget)


class _Budget:
    """Counts what an archive unpacks to, and stops it at the limits."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive, self.limits = archive, limits
        self.files = self.bytes = 0
        self.most = min(limits.size, max(_FREE, limits.ratio * archive.stat().st_size))

    def name(self, name: str) -> str:
        path = PurePosixPath(name)
        strange = not name or "\\" in name or "\0" in name or ":" in (path.parts or ("",))[0]  # Windows paths, drives
        if strange or path.is_absolute() or ".." in path.parts:
            raise self.refusal(f"the member {name!r} would leave the folder")
        self.files += 1
        if self.files > self.limits.files:
            raise self.refusal(f"it has more than {self.limits.files} members")
        return name

    def chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        with self.watched():
            while chunk := file.read(_CHUNK):
                self.bytes += len(chunk)
                if self.bytes > self.most:
                    raise self.refusal(f"it unpacks to more than {self.most} bytes")
                yield chunk

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turns what the readers of archives raise into an error that names this one."""
        try:
            yield
        except (*_BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            fix = f"delete {self.archive} and get it again"
            raise DataError(f"{self.archive} is damaged ({error}).", where=str(self.archive), fix=fix) from error

    def refusal(self, why: str) -> UnsafeError:
        return UnsafeError(f"{self.archive.name} is refused: {why}.", where=str(self.archive), safe="nothing was unpacked")


class _LongHeader(Exception):
    """A header that tarfile would read into memory whole."""


class _Header(tarfile.TarInfo):
    """Notes when the blocks that end an archive are read: tarfile takes one that stops anywhere for complete."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.size > _LONGEST_HEADER and header.type in _IN_MEMORY:
            raise _LongHeader(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            tar.ended = True
            raise


def _tar_files(archive: Path, budget: _Budget) -> Iterator[tuple[str, Iterator[bytes]]]:
    # a stream: nothing is held but the current member. It is unpacked here, a little at a time: tarfile unpacks all that one
    # block of the file holds, and a block of bz2 can hold a hundred thousand times its size
    try:
        with _unpacked(archive) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
            for member in tar:
                name = budget.name(member.name)
                if member.isdir():
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise budget.refusal(f"the member {name!r} is a link or a device")
                yield name, budget.chunks(file)
            if not getattr(tar, "ended", False):
                raise EOFError("it stops before its end")
    except _LongHeader as error:
        raise budget.refusal(f"it has {error}") from error


def _unpacked(archive: Path) -> IO[bytes]:
    with open(archive, "rb") as file:
        start = file.read(6)
    for magic, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if start.startswith(magic):
            return opened(archive, "rb")
    return open(archive, "rb")


def _zip_files(archive: Path, budget: _Budget) -> Iterator[tuple[str, Iterator[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            name = budget.name(member.filename)
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise budget.refusal(f"the member {name!r} is a link or a device")
            with packed.open(member) as file:
                yield name, budget.chunks(file)
