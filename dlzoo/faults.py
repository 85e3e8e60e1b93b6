"""Faults on purpose: DLZOO_FAULT makes a run fail at a place that one can name, to see what is lost.

    DLZOO_FAULT=kill9@step=37 python train.py        as the out-of-memory killer would, before the 38th step
    DLZOO_FAULT=sigterm@val=2 python train.py        as SLURM would, in the second batch of a validation
    DLZOO_FAULT=enospc@save=2:bytes=50% python train.py   the disk is full half-way through the second checkpoint

What: kill9, sigterm, sigint, sigstop, exception, oom, nan (the loss), enospc (a full disk). Where: step=N (once N optimizer
steps are done), val=N, test=N (the N-th batch of the process), save=N (its N-th checkpoint; `bytes` is how much of it is
written by then), sample=N (when the picture of that index is read, by a worker process if there are any). `rank=R` behind a
colon hits that process alone, `file=PATH` only if PATH does not exist yet, and makes it: once in a restarted job. Several are
separated by commas. Without the variable nothing here does anything.
"""

import errno
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dlzoo.errors import ConfigError
from dlzoo.launch import global_rank

VARIABLE = "DLZOO_FAULT"
WHAT = ("kill9", "sigterm", "sigint", "sigstop", "exception", "oom", "nan", "enospc")
WHERE = ("step", "val", "test", "save", "sample")


@dataclass
class Fault:
    """One fault.

    Args:
        what: one of WHAT.
        where: one of WHERE.
        number: which step, batch, save or sample.
        share: of a checkpoint's bytes, for save.
        rank: the process that it hits; None hits all.
        file: a mark that it has happened; "" for none.
    """

    what: str
    where: str
    number: int
    share: float = 0.0
    rank: int | None = None
    file: str = ""
    done: bool = False


def parse(text: str) -> list[Fault]:
    """The faults that a value of DLZOO_FAULT names.

    Raises:
        ConfigError: it names none that there is.
    """
    found = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        match = re.fullmatch(r"(\w+)@(\w+)(?:=(\d+))?((?::[a-z]+=[^:,]+)*)", word)
        options = dict(option.split("=", 1) for option in match[4].split(":")[1:]) if match else {}
        if not match or match[1] not in WHAT or match[2] not in WHERE or set(options) - {"bytes", "rank", "file"}:
            raise ConfigError(
                f"there is no fault {word!r}",
                where=VARIABLE,
                fix=f"what@where=number, of {', '.join(WHAT)} and {', '.join(WHERE)}: kill9@step=37",
            )
        share = float(options.get("bytes", "0").rstrip("%")) / 100
        rank = int(options["rank"]) if "rank" in options else None
        found.append(Fault(match[1], match[2], int(match[3] or 1), share, rank, options.get("file", "")))
    return found


_saves = 0
_parsed: tuple[str, list[Fault]] = ("", [])


def active() -> list[Fault]:
    """The faults of this process that have not happened."""
    global _parsed
    text = os.environ.get(VARIABLE, "")
    if text != _parsed[0]:
        _parsed = (text, parse(text))
    rank = global_rank()
    return [fault for fault in _parsed[1] if not fault.done and fault.rank in (None, rank)]


def due(where: str, number: int) -> Fault | None:
    """The fault that belongs here, marked as done."""
    for fault in active():
        if (fault.where, fault.number) == (where, number):
            fault.done = True
            if fault.file:
                if Path(fault.file).exists():
                    continue
                Path(fault.file).touch()
            return fault
    return None


def strike(fault: Fault) -> None:
    """Lets it happen, but for nan, which is the loss's affair."""
    signals = {"kill9": signal.SIGKILL, "sigterm": signal.SIGTERM, "sigint": signal.SIGINT, "sigstop": signal.SIGSTOP}
    if fault.what in signals:
        os.kill(os.getpid(), signals[fault.what])
    elif fault.what == "exception":
        raise RuntimeError(f"{VARIABLE}: an exception at {fault.where} {fault.number}")
    elif fault.what == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{VARIABLE} at {fault.where} {fault.number}")
    elif fault.what == "oom":
        import torch

        raise torch.OutOfMemoryError(f"{VARIABLE}: out of memory at {fault.where} {fault.number}")


def while_saving(file: IO[bytes]) -> IO[bytes]:
    """The file, or one that fails on the way where a fault says so."""
    global _saves
    if not os.environ.get(VARIABLE):
        return file
    _saves += 1
    fault = due("save", _saves)
    if fault is None:
        return file
    before = Path(file.name).with_name("last.ckpt")
    size = before.stat().st_size if before.is_file() else 1 << 20
    return _Failing(file, int(fault.share * size), lambda: strike(fault))


class _Failing:
    """A file that lets a number of bytes pass."""

    def __init__(self, file: IO[bytes], allowed: int, then: Callable[[], None]) -> None:
        self.file, self.then = file, then
        self.left: int | None = allowed

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.left is not None and len(view) > self.left:
            passed, self.left = self.left, None  # once: after a signal that is only noted the rest may pass
            self.file.write(view[:passed])
            self.file.flush()
            self.then()
            return passed + self.file.write(view[passed:])
        if self.left is not None:
            self.left -= len(view)
        return self.file.write(view)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
