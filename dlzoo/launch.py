"""One run for all processes of a job: the first one chooses the directory and the checkpoint, the others are told.

Processes that Lightning starts are children of the first and find both in their environment. Where torchrun or srun starts
them, none has started another and they are not connected yet: the first leaves a small file under the folder of the runs, named
after the launch, and takes it away again when it ends.
"""

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlzoo.errors import DlzooError, StorageError

__all__ = ["RUN_DIR", "Chosen", "chosen", "global_rank", "launched_from_outside", "telling"]

RUN_DIR, CHECKPOINT = "DLZOO_RUN_DIR", "DLZOO_CKPT_PATH"  # in the environment of the processes that Lightning starts


@dataclass(frozen=True)
class Chosen:
    """What the first process chose for all.

    Args:
        run_dir: the directory of the run.
        ckpt_path: the checkpoint that it goes on from.
    """

    run_dir: Path
    ckpt_path: str | None = None


def launched_from_outside(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or srun started this process together with others."""
    return _number(environment, *_WORLD_SIZE[_launcher(environment)]) > 1


def global_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process among all of its job, 0 where it is alone; Lightning's own children have theirs."""
    if launched_from_outside(environment):
        return _number(environment, *_RANK[_launcher(environment)])
    return _number(environment, "LOCAL_RANK")


def chosen(runs_dir: str | Path, timeout: float = 300.0) -> Chosen | None:
    """What the first process has chosen, in every other one; None in the first, and in a process that is alone.

    Args:
        runs_dir: a folder that all processes see.
        timeout: seconds to wait for the first.

    Raises:
        DlzooError: the first process has not chosen in time.
    """
    if os.environ.get(RUN_DIR):
        return Chosen(Path(os.environ[RUN_DIR]), os.environ.get(CHECKPOINT) or None)
    return _read(_note(runs_dir), timeout) if global_rank() else None


@contextlib.contextmanager
def telling(choice: Chosen, runs_dir: str | Path) -> Iterator[None]:
    """Tells the other processes, those of before and those that Lightning will start, for as long as it is open.

    Raises:
        StorageError: the folder can not be written.
    """
    before = {name: os.environ.get(name) for name in (RUN_DIR, CHECKPOINT)}
    os.environ[RUN_DIR], os.environ[CHECKPOINT] = str(choice.run_dir), choice.ckpt_path or ""
    note = _note(runs_dir) if launched_from_outside() and not global_rank() else None
    if note:
        _write(note, choice)
    try:
        yield
    finally:
        if note:
            note.unlink(missing_ok=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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


def _note(runs_dir: str | Path) -> Path:
    return Path(runs_dir) / f".launch-{_key()}"


def _write(note: Path, choice: Chosen) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=note.parent, prefix=f"{note.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"run_dir": str(choice.run_dir.resolve()), "ckpt_path": choice.ckpt_path}, file)
        os.replace(temporary, note)
    except OSError as error:
        raise StorageError(f"the other ranks can not be told of the run: {error.strerror}", where=str(note.parent)) from error


def _read(note: Path, timeout: float) -> Chosen:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(note.read_text(encoding="utf-8"))
            if Path(found["run_dir"]).is_dir():
                return Chosen(Path(found["run_dir"]), found["ckpt_path"])
        time.sleep(0.05)
    raise DlzooError(
        f"rank 0 has not said where the run is, for {timeout:g} s",
        where=f"rank {global_rank()}, {note}",
        fix="look at what rank 0 says; runs_dir has to be a folder that all ranks see",
    )
