"""Class folders that still lie in an archive: unpacked once, found again from then on.

No torch here, as in folder.py.
"""

import hashlib
import os
from pathlib import Path

from dlzoo.data.archive import extract
from dlzoo.errors import DataError

__all__ = ["opened"]

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


def opened(root: Path) -> Path:
    """The folder of the class folders, or of train/ with them: `root` itself, the one folder in it, or its archive's content.

    An archive is unpacked beside itself, or in $DLZOO_CACHE (~/.cache/dlzoo) where that place is read-only; which of several
    processes does it makes no difference.

    Args:
        root: a folder, or an archive.

    Raises:
        DataError: there are several archives, or one is damaged.
        UnsafeError: the archive would write outside its folder.
    """
    root = Path(root)
    if root.is_file():
        return _inside(_unpacked(root))
    if not root.is_dir() or _folders(root):
        return _inside(root)
    archives = sorted(path for path in root.iterdir() if path.name.lower().endswith(ENDINGS))
    if len(archives) > 1:
        names = ", ".join(path.name for path in archives)
        raise DataError(f"{root} holds several archives: {names}.", where=str(root), fix=f"data.root={archives[0]}")
    return _inside(_unpacked(archives[0])) if archives else root


def _inside(root: Path) -> Path:
    """Steps over a folder that holds nothing but the data set's own folder."""
    if root.is_dir() and not (root / "train").is_dir():
        below = _folders(root)
        if len(below) == 1 and _folders(below[0]):
            return below[0]
    return root


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _unpacked(archive: Path) -> Path:
    state = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    name = next(archive.name[: -len(ending)] for ending in (*ENDINGS, "") if archive.name.lower().endswith(ending))
    cache = Path(os.environ.get("DLZOO_CACHE") or Path.home() / ".cache" / "dlzoo")
    places = (archive.parent / name, cache / "folders" / f"{name}-{key}")
    for place in places:
        if place.is_dir() and any(place.iterdir()):
            return place
    # root could write past a write bit that was taken away
    mine = archive.parent.stat().st_mode & 0o222 and os.access(archive.parent, os.W_OK)
    place = places[0] if mine else places[1]
    try:
        return extract(archive, place)
    except Exception:
        if place.is_dir() and any(place.iterdir()):  # another process was faster
            return place
        raise
