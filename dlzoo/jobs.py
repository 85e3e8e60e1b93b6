"""One training as a process of its own: starting it, reading how far it is, stopping it; it does not outlive its parent.

A job is an ordinary command line of one run, so that what Lightning starts from it (a process for each device) is that run too,
and not the whole sweep once more.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlzoo import targets
from dlzoo.locks import lock_holder
from dlzoo.plots.history import read_metrics
from dlzoo.rundir import Run

__all__ = ["COMMAND", "Job", "follow_parent", "measured", "quoted"]

COMMAND = (sys.executable, "-m", "dlzoo", "train")
PIPE = "DLZOO_PARENT_PIPE"  # the number of a pipe that ends when the parent does, however that ends
GRACE = 60.0  # seconds for a job to save, once it was asked to stop
STOPPED = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of one that was asked to


class Job:
    """A training that runs in a process of its own.

    Args:
        overrides: of the command line, without the run directory.
        run_dir: an empty directory, or that of the run to go on with.
        log: what the job says is added to this file.
        command: the program and its first words.
        variables: more of its environment.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        run_dir: Path,
        log: Path,
        command: Sequence[str] = COMMAND,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.run_dir, self.log = run_dir, log
        words = [*command, *targets.flags(), *overrides, f"run_dir={quoted(str(run_dir))}"]
        if (run_dir / "config.yaml").is_file():
            _wait_for(run_dir)
            words.append("ckpt_path=auto")
        end, self._pipe = os.pipe()
        environment = {**os.environ, **(variables or {}), PIPE: str(end), "PYTHONUNBUFFERED": "1"}
        self.started = time.monotonic()
        self._deadline: float | None = None
        with log.open("ab") as file:
            self._offset = file.tell()
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[end],
                start_new_session=True,  # Ctrl-C is for the parent, which asks its jobs to stop: one signal, not two
            )
        os.close(end)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started

    def stop(self, grace: float = GRACE) -> None:
        """Asks it to save and stop; `poll` ends it if it has not after so many seconds."""
        if self._deadline is None:
            self._deadline = time.monotonic() + grace
            self._send(signal.SIGTERM)

    def poll(self) -> int | None:
        """The exit code, negative where a signal ended it; None while it runs."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()
        code = self.process.poll()
        if code is not None and self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        return code

    def kill(self) -> None:
        """Ends it and everything it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def reason(self) -> str:
        """Why it failed, in its own words: the line of the error that it showed last."""
        with self.log.open("rb") as file:
            file.seek(max(self._offset, file.seek(0, os.SEEK_END) - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
        found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        code = self.process.returncode or 0
        return found[-1] if found else f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


def follow_parent() -> None:
    """In a job: asks this process to stop, by SIGTERM, when the process that started it is gone."""
    if (end := os.environ.pop(PIPE, None)) is None:  # what it starts itself hears of it from it
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(int(end), 1)  # nobody writes: it returns when the last writer is gone
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def measured(run_dir: Path, metric: str) -> list[float]:
    """The values of a metric so far, one for each time that it was measured."""
    path = run_dir / "metrics.csv"
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # its last row is being written
                return []
        return read_metrics(path).get(metric, ([], []))[1]
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or being written: it will be read again
        return []


def finished(run_dir: Path) -> bool:
    """Whether the run came to its end."""
    return (run_dir / "config.yaml").is_file() and Run(run_dir).status == "finished"


def quoted(value: str) -> str:
    """A text as the value of an override: as it is, or in quotes where Hydra's grammar has a meaning for one of its signs."""
    if re.fullmatch(r"[\w./:+@%-]+", value):
        return value
    # a backslash is one of its signs only where a quote follows it
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value) + "'"


def _wait_for(run_dir: Path, seconds: float = GRACE) -> None:
    """Waits until the process that trained in a directory before has saved and gone."""
    until = time.monotonic() + seconds
    while lock_holder(run_dir) and time.monotonic() < until:
        time.sleep(0.1)
