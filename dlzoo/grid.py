"""The jobs of a multirun, in jobs.json: which there are, and how far they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlzoo import driver, jobs, rundir
from dlzoo.driver import Record
from dlzoo.mistakes import key_of

__all__ = ["Grid", "words_of"]


class Grid:
    """A list of jobs that is worked off in order.

    Args:
        folder: of the sweep.
        metric: what the table shows.
        mode: "min" or "max": which way is better.
    """

    watches = False  # each job was asked for: none is stopped

    def __init__(self, folder: Path, metric: str, mode: str) -> None:
        self.folder, self.metric, self.mode = folder, metric, mode
        self.file = folder / "jobs.json"
        self.lock = FileLock(folder / "lock")
        self.total = len(self.records()) if self.file.is_file() else 0

    def create(self, overrides: Sequence[Sequence[str]]) -> None:
        """Writes down the jobs, one for each list of overrides."""
        self._write([Record(number, list(own)) for number, own in enumerate(overrides, 1)])
        self.total = len(overrides)

    def retry(self) -> None:
        """Gives failed jobs another chance, unless another driver is at work and has just failed at them."""
        with self.lock:
            if driver.others(self.folder, ""):
                return
            found = self.records()
            for record in found:
                if record.status == "failed":
                    record.status, record.reason = "waiting", ""
            self._write(found)

    def claim(self, worker: str) -> Record | None:
        """The next job that nobody has, or whose driver is gone."""
        with self.lock:
            found = self.records()
            for record in found:
                if record.status == "running" and driver.alive(self.folder, record.worker):
                    continue
                if record.status == "running" and record.run_dir and jobs.finished(Path(record.run_dir)):
                    record.status = "finished"  # its driver was gone by then
                    driver.taken(record, self.metric, self.mode)
                    self._write(found)
                if record.status in driver.DONE:
                    continue
                record.run_dir = driver.place(self.folder, record.number, record.run_dir)
                record.status, record.worker = "running", worker
                self._write(found)
                return record
        return None

    def report(self, record: Record, step: int, value: float) -> bool:
        """Never stops a job."""
        return False

    def finish(self, record: Record) -> None:
        with self.lock:
            self._write([record if other.number == record.number else other for other in self.records()])

    def records(self) -> list[Record]:
        return [Record(**entry) for entry in json.loads(self.file.read_text(encoding="utf-8"))["jobs"]]

    def _write(self, records: Sequence[Record]) -> None:
        rundir.write_json(self.file, {"jobs": [asdict(record) for record in records]})


def words_of(options: Mapping[str, Any], asked: Sequence[str]) -> list[str]:
    """The overrides of a grid that a file of configs/hparams_search describes; those of the command line take their place.

    Args:
        options: of the file: overrides and params.
        asked: words of the command line.
    """
    words = {key_of(word): word for word in options["overrides"]}
    words |= {key: f"{key}={value}" for key, value in options["params"].items()}
    return list((words | {key_of(word): word for word in asked}).values())
