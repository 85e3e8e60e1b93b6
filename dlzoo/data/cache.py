"""Decoded data sets, kept as one file of tensors, so that sixty thousand pictures are decoded once and not at every start.

A cache belongs to what it was made from: its name holds a fingerprint of the source's files, so that a changed source, or the
same data set in another folder, never gets it. It lies beside the data where that can be written, else in $DLZOO_CACHE or
~/.cache/dlzoo.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from dlzoo.data.splits import Splits

__all__ = ["any_cached", "cached", "fingerprint"]

FORMAT = 1  # part of every fingerprint: raise it when what is stored changes meaning

_log = logging.getLogger(__name__)


def fingerprint(kind: str, files: Iterable[Path]) -> str:
    """16 hex digits from where the files lie, their sizes and their times."""
    digest = hashlib.sha256(f"{FORMAT} {kind}".encode())
    for path in files:
        state = path.stat()
        digest.update(f"\n{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def cached(folder: Path, name: str, key: str, read: Callable[[], Splits]) -> Splits:
    """What `read` returns, from the cache where it is there; otherwise it is read and kept.

    Args:
        folder: of the data set.
        name: of the data set, such as "cifar10".
        key: fingerprint of the source.
        read: decodes the source.
    """
    file = f"dlzoo-{name}-{key}.safetensors"
    places = (folder / file, _cache_root() / file)
    for path in places:
        splits = _load(path)
        if splits is not None:
            return splits
    _log.info("reading %s; the next start finds it in a cache", name)
    splits = read()
    for path in places:
        if _may_write(path.parent) and _save(splits, path):
            break
    return splits


def any_cached(folder: Path, name: str) -> Splits | None:
    """The newest cache in the data set's own folder, for when its source is gone."""
    if not folder.is_dir():
        return None
    paths = sorted(folder.glob(f"dlzoo-{name}-*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((splits for splits in map(_load, paths) if splits is not None), None)


def _cache_root() -> Path:
    return Path(os.environ.get("DLZOO_CACHE") or Path.home() / ".cache" / "dlzoo")


def _may_write(folder: Path) -> bool:
    """Whether the folder, or what it would be made in, has a write bit: root could write past one that was taken away."""
    while not folder.exists():
        folder = folder.parent
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


def _load(path: Path) -> Splits | None:
    """The cached data set, or None where there is none or it is damaged: it is made again then."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            return Splits(**tensors, edition=(file.metadata() or {}).get("edition", ""))
    except (SafetensorError, OSError, TypeError) as error:
        _log.warning("the cache %s is damaged and is made again (%s)", path, error)
        return None


def _save(splits: Splits, path: Path) -> bool:
    """Whether the cache could be written; a full or read-only disk is no reason to stop."""
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in splits._asdict().items() if name != "edition" and value is not None}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={"edition": splits.edition})
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())  # safetensors leaves it to the owner alone; data folders are shared
        os.replace(partial, path)
        return True
    except Exception as error:  # safetensors wraps the disk's errors in its own type
        _log.warning("no cache at %s (%s)", path, error)
        with contextlib.suppress(OSError):
            partial.unlink()
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
