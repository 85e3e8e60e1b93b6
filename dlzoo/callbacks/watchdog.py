"""Several processes, one of which dies or hangs: the others find out which, say so, and end.

Left alone, the others wait in an exchange for as long as its timeout lasts, half an hour, and then name a collective and not
the culprit. Here a thread of every process writes a small file each second; a process that is stopped writes none, one that
waits for another does. So whoever is silent is the culprit, whatever the main threads do: compile, validate, load.
"""

import contextlib
import json
import logging
import os
import platform
import shutil
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import lightning as L

from dlzoo.errors import DlzooError
from dlzoo.signals import Stopped

__all__ = ["Watchdog", "watch_children"]

log = logging.getLogger("dlzoo")


class Watchdog(L.Callback):
    """Ends the run where another rank is dead, or silent for too long; does nothing where a process is alone.

    Args:
        run_dir: the directory of the run, which all ranks see.
        silent_seconds: a rank that has not been heard for so long is taken for hung.
        every_seconds: between two signs of life.
        grace_seconds: that the main thread has for leaving by itself once another rank is gone.
    """

    def __init__(
        self, run_dir: str, silent_seconds: float = 40.0, every_seconds: float = 1.0, grace_seconds: float = 8.0
    ) -> None:
        self.run_dir, self.folder = Path(run_dir), Path(run_dir) / "heartbeats"
        self.silent_seconds, self.every_seconds, self.grace_seconds = silent_seconds, every_seconds, grace_seconds
        self.culprit = ""  # the rank that the run ends for, and why, in words
        self._code = 1
        self._thread: threading.Thread | None = None
        self._leave, self._found = threading.Event(), threading.Event()
        watch_children()

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if trainer.world_size == 1 or self._thread is not None:
            return
        theirs = trainer.strategy.broadcast(str(self.run_dir.resolve()))
        if theirs != str(self.run_dir.resolve()):
            raise DlzooError(
                "the ranks do not agree on the run directory",
                where=f"rank {trainer.global_rank}: {self.run_dir}, rank 0: {theirs}",
                fix="run_dir=PATH for all of them",
            )
        if trainer.is_global_zero:  # what a run that was killed here has left
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(exist_ok=True)
        self._trainer, self._rank, self._size = trainer, trainer.global_rank, trainer.world_size
        # the token comes after the folder: a file without it is of another time
        self._life = {"token": trainer.strategy.broadcast(uuid.uuid4().hex), "beat": 0, "state": "", "code": 0}
        self._life |= {"pid": os.getpid(), "began": _began(os.getpid()), "host": platform.node()}
        _take_over()
        self._leave.clear()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="dlzoo-watchdog", daemon=True)
        self._thread.start()

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        self._stop()
        if trainer.is_global_zero:
            with contextlib.suppress(OSError):  # not empty: another rank is still at it, and finds nothing there to mind
                self.folder.rmdir()

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        if self._thread is None:
            return
        if isinstance(exception, Stopped | KeyboardInterrupt):  # every rank was asked to
            self._stop()
        elif _broken_exchange(exception) and self._found.wait(2 * self.every_seconds + 3):
            self._leave.set()
            raise self.error() from exception
        else:
            own = isinstance(exception, DlzooError)
            self._life["state"] = exception.what if own else f"{type(exception).__name__}: {str(exception).strip()[:200]}"
            self._life["code"] = exception.exit_code if own else 1
            self._beat()
            self._leave.set()

    def error(self) -> DlzooError:
        """What a user is told of the culprit."""
        error = DlzooError(
            self.culprit,
            where=f"{self._size} processes; rank {self._rank} tells of it",
            safe="the checkpoints written so far",
            fix=f"dlzoo resume {self.run_dir}",
        )
        error.exit_code = self._code
        return error

    def _stop(self) -> None:
        if self._thread is None:
            return
        self._leave.set()
        self._thread.join()
        self._thread = None
        self._file(self._rank).unlink(missing_ok=True)

    # --- the thread

    def _watch(self) -> None:
        silent = {rank: 0.0 for rank in range(self._size) if rank != self._rank}
        heard: dict[int, dict[str, Any]] = {}
        before = time.monotonic()
        while not self._leave.wait(self.every_seconds):
            self._beat()
            # a machine that slept was silent as a whole: what passed meanwhile counts for no more than two of our rounds
            now = time.monotonic()
            passed, before = min(now - before, 2 * self.every_seconds), now
            for rank in silent:
                life = self._read(rank, heard.get(rank))
                if life is None:  # has not begun, or is done
                    heard.pop(rank, None)
                    continue
                silent[rank] = silent[rank] + passed if life == heard.get(rank) else 0.0
                heard[rank] = life
                if reason := self._reason(life, silent[rank]):
                    self._end_with(rank, life, reason)
                    return

    def _reason(self, life: dict[str, Any], silent: float) -> str:
        step = f"step {life['step']}"
        if life["state"]:
            return f"failed at {step}: {life['state']}"
        if _is_dead(life):
            return f"died at {step}, killed from outside or out of memory"
        return f"silent since {step}, for {silent:.0f} s" if silent >= self.silent_seconds else ""

    def _end_with(self, rank: int, life: dict[str, Any], reason: str) -> None:
        self.culprit, self._code = f"rank {rank} {reason}", life["code"] or 1
        log.debug("%s; rank %d leaves", self.culprit, self._rank)
        if not life["state"]:
            _kill(life)  # one that is only stopped would stay for ever; and its end wakes those that wait for it
        self._found.set()
        end = time.monotonic() + self.grace_seconds
        while time.monotonic() < end:
            self._beat()
            if self._leave.wait(0.2):
                return
        if self._rank == min(other for other in range(self._size) if other != rank):
            print(f"error: {self.error()}", file=sys.stderr, flush=True)
        log.debug("the main thread of rank %d waits in vain", self._rank)
        os._exit(self._code)

    # --- signs of life

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank_{rank}.json"

    def _beat(self) -> None:
        self._life["beat"] += 1
        self._life["step"] = self._trainer.global_step
        with contextlib.suppress(OSError):  # a full disk is another's affair
            self._file(self._rank).write_text(json.dumps(self._life), encoding="utf-8")  # in place: so a network disk shows it

    def _read(self, rank: int, before: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            life = json.loads(self._file(rank).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # it is being written
            return before
        return life if life["token"] == self._life["token"] else None


def watch_children() -> None:
    """Names the child that ends before training has begun; Lightning would kill all, itself included, without a word."""
    from lightning.fabric.strategies.launchers import subprocess_script

    def look(observer: Any) -> bool:
        codes = [child.poll() for child in observer._child_processes]
        failed = next((index for index, code in enumerate(codes) if code), None)
        if failed is None:
            return all(code == 0 for code in codes)
        code = codes[failed]
        how = f"ended with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        text = f"rank {failed + 1} {how} before the training began"
        log.debug(text)
        time.sleep(1)  # this process may be about to say the same of itself, and better
        print(f"error: {text}", file=sys.stderr, flush=True)
        for child in observer._child_processes:
            if child.poll() is None:
                child.kill()
        os._exit(code if code > 0 else 1)

    subprocess_script._ChildProcessObserver._run = look


def _take_over() -> None:
    """From here on a rank's end is the watchdog's affair: Lightning's observer, which kills this process too, sees none."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []


def _broken_exchange(exception: BaseException) -> bool:
    """Whether an exception may come from another rank's end."""
    if isinstance(exception, ConnectionError | TimeoutError):
        return True
    words = ("gloo", "nccl", "connection", "socket", "peer", "timed out", "timeout", "broken pipe")
    return isinstance(exception, RuntimeError) and any(word in str(exception).lower() for word in words)


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks: its number may be another's by now. "" where the kernel does not say."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _is_dead(life: dict[str, Any]) -> bool:
    if life["host"] != platform.node():
        return False  # only its silence tells
    if not life["began"]:
        try:
            os.kill(life["pid"], 0)
        except ProcessLookupError:
            return True
        return False
    fields = _stat(life["pid"])
    return not fields or fields[0] in "ZX" or fields[19] != life["began"]


def _kill(life: dict[str, Any]) -> None:
    if life["host"] == platform.node() and life["began"] and not _is_dead(life):
        with contextlib.suppress(OSError):
            os.kill(life["pid"], signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The state of a process and what follows it in /proc/<pid>/stat."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []
