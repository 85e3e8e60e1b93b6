"""Where numbers go besides the screen: metrics.csv, TensorBoard, Weights & Biases."""

import csv
import importlib.util
import logging
import netrc
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from dlzoo.errors import ConfigError

log = logging.getLogger("dlzoo")


class CSVLogger(Logger):
    """metrics.csv: a row for each step at which something was logged, a column for each metric.

    A run that goes on from a checkpoint keeps the rows up to it and writes those after it anew. (Lightning's own logger
    deletes the file.) Numbers are written with all their digits: two runs are the same where their files are.

    Args:
        run_dir: the directory of the file.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self.start = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.written = 0  # rows of the file that are final
        self.columns = ["step", "epoch", "seconds"]

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = int(step or 0)
        if self.rows and self.rows[-1]["step"] == step:
            row = self.rows[-1]
        else:
            self.save()
            row = {"step": step}
            self.rows.append(row)
        numbers = {key: repr(value) if isinstance(value, float) else value for key, value in metrics.items()}
        row.update(numbers | {"epoch": row.get("epoch", numbers.get("epoch", ""))})  # a test after the last epoch is in none
        row["seconds"] = f"{time.monotonic() - self.start:.2f}"
        if any(key not in self.columns for key in row):
            self.columns += [key for key in row if key not in self.columns]
            self.written = 0  # a new column: the file is written again

    @rank_zero_only
    def save(self) -> None:
        """Writes what is not in the file yet. The row of the newest step may still grow: it is written again if it does."""
        if not self.rows:
            return
        # a process may be killed in any of these lines: what has been in the file stays in it
        path = self.path if self.written else self.path.with_name(f".{self.path.name}")
        with path.open("r+" if self.written else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            if not self.written:
                writer.writeheader()
                self.offset = file.tell()
            file.seek(self.offset)
            writer.writerows(self.rows[self.written : -1])
            self.offset = file.tell()
            writer.writerow(self.rows[-1])
            file.truncate()
        if path != self.path:
            os.replace(path, self.path)
        self.written = len(self.rows) - 1

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def go_on(self, step: int) -> None:
        """Takes up the rows of the file up to this step."""
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.columns = list(reader.fieldnames or self.columns)
                self.rows = [row | {"step": int(row["step"])} for row in reader if _whole(row) and int(row["step"]) <= step]
            if self.rows:
                self.start -= float(self.rows[-1]["seconds"] or 0)


def _whole(row: dict[str, Any]) -> bool:
    """Whether a row is not the torn end of a file."""
    return None not in row and None not in row.values() and str(row["step"]).isdigit()


def tensorboard(run_dir: str) -> Logger:
    """TensorBoard files in the run directory.

    Args:
        run_dir: they lie in its folder tensorboard/.

    Raises:
        ConfigError: the package is not installed.
    """
    _require("tensorboard")
    return TensorBoardLogger(save_dir=run_dir, name="", version="tensorboard", default_hp_metric=False)


def wandb(run_dir: str, project: str, name: str, tags: list[str], timeout: float = 10.0) -> Logger:
    """Weights & Biases, which never asks and never blocks: without an account or an answer the run is kept offline.

    Args:
        run_dir: the files lie in its folder wandb/.
        project: project on the server.
        name: name of the run.
        tags: tags of the run.
        timeout: seconds to wait for the server.

    Raises:
        ConfigError: the package is not installed.
    """
    _require("wandb")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    import wandb as client
    from lightning.pytorch.loggers import WandbLogger

    class Marked(WandbLogger):
        """Says of a run that did not finish that it failed; of itself it would be shown as finished."""

        @rank_zero_only
        def finalize(self, status: str) -> None:
            super().finalize(status)
            if status == "failed":
                self.experiment.finish(exit_code=1)

    def start(offline: bool) -> Logger:
        if rank_zero_only.rank != 0:
            return WandbLogger(project=project, save_dir=run_dir, offline=offline)
        run = client.init(
            name=name,
            project=project,
            dir=run_dir,
            tags=list(tags),
            mode="offline" if offline else "online",
            settings=client.Settings(init_timeout=timeout, silent=True, console="off"),
        )
        return Marked(experiment=run, save_dir=run_dir)

    if os.environ.get("WANDB_MODE") == "offline" or not _has_account():
        log.info("wandb: no account here, so the run is kept offline; later: wandb sync %s/wandb/offline-run-*", run_dir)
        return start(offline=True)
    try:
        return start(offline=False)
    except (client.Error, OSError) as error:
        log.warning(
            "wandb: no answer (%s), so the run is kept offline; later: wandb sync %s/wandb/offline-run-*", error, run_dir
        )
        client.teardown()
        return start(offline=True)


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"logger={package} needs a package that is not installed",
            where=f"logger={package}",
            fix=f'pip install "dlzoo[{package}]"',
        )
