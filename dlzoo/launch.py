"""One run directory for all processes of a job that torchrun or srun started: the first one makes it, the others are told.

Where Lightning starts the processes itself, the first is their parent and hands the directory on in the environment. Here no
process has started another, and they are not connected yet: the first leaves a small file under the folder of the runs, named
after the launch, and takes it away again when it ends.
"""

import atexit
import contextlib
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dlzoo.errors import DlzooError, StorageError

__all__ = ["global_rank", "launched_from_outside", "run_directory_for_ranks"]


def launched_from_outside(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or srun started this process together with others."""
    return _number(environment, *_WORLD_SIZE[_launcher(environment)]) > 1


def global_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process among all of its job, 0 where it is alone; Lightning's own children have theirs."""
    if launched_from_outside(environment):
        return _number(environment, *_RANK[_launcher(environment)])
    return _number(environment, "LOCAL_RANK")


def run_directory_for_ranks(create: Callable[[], Path], runs_dir: str | Path, timeout: float = 120.0) -> Path:
    """The directory of the run: made by rank 0, and the same for every rank.

    Args:
        create: makes it; only called in rank 0, and in a process that is alone.
        runs_dir: a folder that all ranks see.
        timeout: seconds that the others wait for rank 0.

    Raises:
        DlzooError: rank 0 has not said in time where the run is.
        StorageError: the folder can not be written.
    """
    if not launched_from_outside():
        return create()
    note = Path(runs_dir) / f".launch-{_key()}"
    if global_rank():
        return _told(note, timeout)
    _forget(note)
    path = create()
    _tell(note, path.resolve())
    return path


# what each launcher calls the number of processes, and that of this one
_WORLD_SIZE = {"torchrun": ("WORLD_SIZE",), "srun": ("SLURM_NTASKS",), "": ()}
_RANK = {"torchrun": ("RANK",), "srun": ("SLURM_PROCID",), "": ()}


def _launcher(environment: Mapping[str, str]) -> str:
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    # in an interactive job Lightning starts the processes itself
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "srun" if "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment and not interactive else ""


def _number(environment: Mapping[str, str], *names: str) -> int:
    return next((int(environment[name]) for name in names if environment.get(name)), 0)


def _key() -> str:
    """Words that this launch's processes share, and no other launch has."""
    found = os.environ
    if _launcher(found) == "srun":
        words = [found.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    else:
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
        words = [found.get(name, "") for name in names]
        if found.get("LOCAL_WORLD_SIZE") == found.get("WORLD_SIZE"):  # one machine, one parent: told from a launch before it
            words += [platform.node(), str(os.getppid())]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _tell(note: Path, path: Path) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=note.parent, prefix=f"{note.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(str(path))
        os.replace(temporary, note)
    except OSError as error:
        raise StorageError(f"the other ranks can not be told of the run: {error.strerror}", where=str(note.parent)) from error
    atexit.register(_forget, note)


def _told(note: Path, timeout: float) -> Path:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            path = Path(note.read_text(encoding="utf-8"))
            if path.is_dir():
                return path
        time.sleep(0.05)
    raise DlzooError(
        f"rank 0 has not said where the run is, for {timeout:g} s",
        where=f"rank {global_rank()}, {note}",
        fix="look at what rank 0 says; runs_dir has to be a folder that all ranks see",
    )


def _forget(note: Path) -> None:
    note.unlink(missing_ok=True)
