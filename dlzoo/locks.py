"""The lock of a run's directory: one process trains in it, and a process that is gone holds nothing."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from dlzoo.errors import RunInUseError, StorageError

LOCK = "run.lock"  # in the directory of a run, for as long as a process trains in it


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the directory of a run: no second process trains in it. A lock whose process is gone is nobody's.

    Raises:
        RunInUseError: another process has it; the text names the process and its machine.
        StorageError: the directory can not be written.
    """
    import fcntl

    lock = path / LOCK
    try:
        file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 (held until the run ends)
    except OSError as error:
        raise StorageError(f"the run directory can not be written: {error.strerror}", where=str(path)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunInUseError(
                f"{path} is being trained in",
                where=f"by {lock_holder(path) or 'another process'}",
                safe="nothing in it was touched",
                fix="wait for it, stop it, or take another run_dir",
            ) from error
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def lock_holder(path: Path) -> str:
    """The process that trains in a directory, as words; "" where none does."""
    import fcntl

    try:
        with open(path / LOCK, "r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return file.read() or "another process"
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        pass
    return ""
