"""Runs the jobs of a sweep: so many at a time, watched, stopped where they have no hope, recorded however they end.

Several drivers, on several machines that share a disk, may work at one sweep: what is to be done next is decided under one
lock, and a driver that is gone has left its jobs to the others.
"""

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from dlzoo import jobs, rundir, signals
from dlzoo.jobs import Job
from dlzoo.locks import lock_holder

__all__ = ["Record", "Source", "Worker", "drive", "place", "short", "taken"]

POLL = 0.2  # seconds between two looks at the jobs
PRUNING = 15.0  # seconds for a job without hope to save and stop
SILENT = 120.0  # seconds after which a driver on another machine that gives no sign of life is held to be gone
DONE = ("finished", "pruned", "failed")


@dataclass
class Record:
    """One job of a sweep, and how it went.

    Args:
        number: 1, 2, 3 and so on.
        overrides: what is its own.
        status: waiting, running, finished, pruned, failed or interrupted.
        value: of the metric that the sweep looks at.
        metrics: all of the run's, once it is finished.
        seconds: it has taken.
        run_dir: its directory.
        reason: why it failed.
        worker: the driver that has it.
    """

    number: int
    overrides: list[str]
    status: str = "waiting"
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    run_dir: str | None = None
    reason: str = ""
    worker: str = ""


def short(word: str) -> str:
    """An override as it is read best: a number without the seventeen digits that a computer wants."""
    return re.sub(r"(?<==)-?\d+\.\d{5,}(e[-+]?\d+)?$", lambda found: f"{float(found[0]):.4g}", word)


class Source(Protocol):
    """Where the jobs come from, and where their results go."""

    metric: str
    mode: str
    total: int
    watches: bool  # whether it wants to know of each validation

    def claim(self, worker: str) -> Record | None: ...
    def report(self, record: Record, step: int, value: float) -> bool: ...
    def finish(self, record: Record) -> None: ...
    def records(self) -> list[Record]: ...


class Worker:
    """This driver's sign of life in the folder of a sweep: a lock that the system takes from a process that is gone.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"{platform.node()}-{os.getpid()}"
        self.file = folder / "workers" / self.name
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.file)
        self._next = 0.0

    def __enter__(self) -> "Worker":
        self.lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        self.file.unlink(missing_ok=True)

    def beat(self) -> None:
        """A sign for other machines, whose systems may not see the lock."""
        if (now := time.monotonic()) > self._next:
            self._next = now + SILENT / 8
            with contextlib.suppress(OSError):
                os.utime(self.file)


def alive(folder: Path, worker: str) -> bool:
    """Whether the driver of that name is still at work."""
    file = folder / "workers" / worker
    if not worker or not file.is_file():
        return False
    if worker.rpartition("-")[0] != platform.node():
        return time.time() - file.stat().st_mtime < SILENT
    probe = FileLock(file)
    try:
        probe.acquire(timeout=0)
    except Timeout:
        return True
    probe.release()
    return False


def others(folder: Path, worker: str) -> list[str]:
    """The other drivers that are at work in a folder."""
    return [path.name for path in (folder / "workers").glob("*") if path.name != worker and alive(folder, path.name)]


def place(folder: Path, number: int, before: str | None) -> str:
    """The directory for a job: that of its run, if it was begun before, else a new one."""
    if before and (Path(before) / "config.yaml").is_file():
        return before
    if before and not lock_holder(Path(before)):
        shutil.rmtree(before, ignore_errors=True)  # killed before it was a run
    return str(rundir.mkdir_new(folder / f"{number:03d}"))


def taken(record: Record, metric: str, mode: str) -> None:
    """Reads the numbers of a finished run: its value is the best of its validations, the one whose weights are kept."""
    assert record.run_dir is not None
    path = Path(record.run_dir)
    with contextlib.suppress(OSError, ValueError):
        record.metrics = rundir.Run(path).metrics
    values = [*jobs.measured(path, metric)] or [value for name, value in record.metrics.items() if name == metric]
    finite = [value for value in values if abs(value) < float("inf")]
    record.value = (min if mode == "min" else max)(finite) if finite else None


@dataclass
class _Running:
    record: Record
    job: Job
    before: float  # seconds that an earlier process of it has taken
    values: list[float] = field(default_factory=list)  # that were reported
    hopeless: bool = False
    next: float = 0.0  # when its numbers are read again


def drive(
    source: Source,
    folder: Path,
    shared: Sequence[str],
    workers: int,
    command: Sequence[str] = jobs.COMMAND,
    named_logger: str | None = None,
) -> int:
    """Runs jobs until there is none left to begin, or until this process is asked to stop.

    Args:
        source: of the jobs.
        folder: of the sweep.
        shared: the overrides that all jobs have.
        workers: how many run at a time.
        command: what a job is started by.
        named_logger: the key of a name for each job's run, such as "logger.wandb.name".

    Returns:
        the signal that stopped it, or 0.
    """
    variables = {"WANDB_RUN_GROUP": folder.name}
    running: list[_Running] = []
    with Worker(folder) as worker, signals.listening():
        signals.deferred(True)
        try:
            while True:
                while not signals.requested() and len(running) < workers and (record := source.claim(worker.name)) is not None:
                    words = [*shared, *record.overrides]
                    if named_logger:
                        words.append(f"{named_logger}={jobs.quoted(f'{folder.name}-{record.number:03d}')}")
                    _say(record, source, "goes on" if (Path(record.run_dir) / "config.yaml").is_file() else "starts", words)
                    log = folder / f"{record.number:03d}.log"
                    job = Job(words, Path(record.run_dir), log, command, variables)
                    running.append(_Running(record, job, record.seconds))
                if not running:
                    return signals.requested()
                for one in list(running):
                    if signals.requested():
                        one.job.stop()
                    if _look(one, source):
                        running.remove(one)
                worker.beat()
                time.sleep(POLL)
        finally:
            for one in running:  # something went wrong here: no job is left to itself
                one.job.stop(5.0)
            for one in running:
                while one.job.poll() is None:
                    time.sleep(POLL)


def _look(one: _Running, source: Source) -> bool:
    """Reports what a job has measured, and records its end; whether it has ended."""
    record, job = one.record, one.job
    code = job.poll()
    if source.watches and (code is not None or time.monotonic() >= one.next):
        _report(one, source, stoppable=code is None)
    if code is None:
        return False
    record.seconds = round(one.before + job.seconds, 1)
    if code == 0:
        record.status = "finished"
        taken(record, source.metric, source.mode)
    elif one.hopeless:
        record.status, record.value = "pruned", one.values[-1]
    elif code in jobs.STOPPED and _told_soon():
        record.status = "interrupted"
    else:
        record.status, record.reason = "failed", job.reason()
    source.finish(record)
    _say(record, source, _ending(record, source, len(one.values)), [])
    return True


def _report(one: _Running, source: Source, stoppable: bool) -> None:
    """Reports the validations that are new, and asks the job to stop if they leave no hope."""
    since = time.monotonic()
    found = jobs.measured(one.job.run_dir, source.metric)
    for value in found[len(one.values) :]:
        one.values.append(value)
        if source.report(one.record, len(one.values), value) and stoppable and not one.hopeless:
            one.hopeless = True
            one.job.stop(PRUNING)
    # a long table takes time to read: a twentieth of it at most
    one.next = (now := time.monotonic()) + 20 * (now - since)


def _told_soon(seconds: float = 1.0) -> bool:
    """Whether this process is asked to stop too: a scheduler sends the signal to all of them, one after the other."""
    until = time.monotonic() + seconds
    while not signals.requested() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(signals.requested())


def _ending(record: Record, source: Source, validations: int) -> str:
    if record.status == "failed":
        return f"failed: {record.reason}"
    if record.status == "interrupted":
        return "interrupted, saved"
    number = "no value" if record.value is None else f"{source.metric} {record.value:.4g}"
    pruned = f"  pruned at validation {validations}" if record.status == "pruned" else ""
    return f"{number}{pruned}  {record.seconds:.0f} s"


def _say(record: Record, source: Source, text: str, words: Sequence[str]) -> None:
    shown = "  " + " ".join(map(short, record.overrides)) if words and record.overrides else ""
    print(f"#{record.number} of {source.total}  {text}{shown}", flush=True)
