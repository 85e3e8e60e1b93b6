"""A run's directory: made so that two runs never share one, and read again afterwards. Imports no torch by itself."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dlzoo.errors import CheckpointError, ConfigError, RunInUseError, StorageError, suggest
from dlzoo.locks import lock_holder
from dlzoo.redact import redact
from dlzoo.slurm import slurm_job

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

PACKAGES = ("dlzoo", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "timm")


@dataclass(frozen=True)
class Run:
    """A run's directory and what can be read from it.

    Args:
        dir: the directory.
    """

    dir: Path

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, plain values."""
        return yaml.safe_load((self.dir / "config.yaml").read_text(encoding="utf-8"))

    @property
    def overrides(self) -> list[str]:
        """What was typed to start it, and to go on with it."""
        path = self.dir / "overrides.yaml"
        return list(yaml.safe_load(path.read_text(encoding="utf-8")) or []) if path.is_file() else []

    @property
    def summary(self) -> dict[str, Any]:
        """Status, metrics, time, classes and preprocessing: summary.json."""
        return json.loads((self.dir / "summary.json").read_text(encoding="utf-8"))

    @property
    def metrics(self) -> dict[str, float]:
        """The final value of every metric."""
        return self.summary.get("metrics", {})

    @property
    def history(self) -> dict[str, tuple[list[float], list[float]]]:
        """Every metric over time: name -> (steps, values), from metrics.csv."""
        from dlzoo.plots.history import read_metrics

        return read_metrics(self.dir / "metrics.csv")

    def checkpoint(self, which: str = "best") -> Path:
        """The checkpoint `best` or `last`.

        Raises:
            CheckpointError: the run has none.
        """
        folder = self.dir / "checkpoints"
        for name in (which, "last", "previous"):
            if (folder / f"{name}.ckpt").exists():
                return folder / f"{name}.ckpt"
        raise CheckpointError(
            f"the run has no checkpoint {which}.ckpt", where=str(folder), fix="dlzoo list runs, for those that have one"
        )

    @property
    def status(self) -> str:
        """finished, running, interrupted or failed; "killed" where it says running and its process is gone."""
        try:
            summary = self.summary
        except (OSError, ValueError):
            return "killed" if not lock_holder(self.dir) else "running"
        return "killed" if summary.get("status") == "running" and not lock_holder(self.dir) else str(summary.get("status"))

    def plot(self) -> "Figure":
        """The learning curves so far."""
        from dlzoo.plots.curves import curves

        return curves(self.history, title=str(self.config["name"]))

    def load(self, which: str = "best") -> "nn.Module":
        """The trained network, in evaluation mode, on the CPU."""
        from dlzoo.verbs import load

        return load(self.dir, which)


def create(config: Mapping[str, Any], run_dir: str | None) -> Path:
    """Makes the directory of a new run: `run_dir`, or the first free one under runs/<name>/ at this second.

    Raises:
        RunInUseError: `run_dir` holds a run already.
        StorageError: the place can not be written.
    """
    try:
        if run_dir:
            path = Path(run_dir)
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunInUseError(
                    f"{run_dir} is not empty",
                    where="run_dir",
                    safe="nothing in it was touched",
                    fix=f"dlzoo resume {run_dir}, or another run_dir",
                )
        else:
            path = mkdir_new(Path(config["runs_dir"]) / config["name"] / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
        (path / "checkpoints").mkdir()
    except OSError as error:
        raise StorageError(
            f"the run directory can not be made: {error.strerror}", where=str(error.filename), fix="run_dir=PATH"
        ) from error
    return path


def mkdir_new(path: Path) -> Path:
    """`path`, or path-2, path-3, ...: mkdir itself decides who gets which, so that 32 starts in one second get 32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1


def further(limits: Mapping[str, Any]) -> str:
    """The overrides that let a finished run go on for as long again, from its trainer's config."""
    set_here = [key for key in ("max_steps", "max_epochs") if (limits[key] or 0) > 0]
    return " ".join(f"trainer.{key}={2 * limits[key]}" for key in set_here) or "trainer.max_epochs=1"


def find(run: str | Path) -> Run:
    """The run at a directory.

    Raises:
        ConfigError: there is none; the text names those that are near.
    """
    path = Path(run)
    if path.is_file() or path.suffix == ".ckpt":  # a checkpoint (a folder of shares too), or the config inside the directory
        path = path.parent.parent if path.suffix == ".ckpt" else path.parent
    if not (path / "config.yaml").is_file():
        near = suggest(str(path), [str(found.dir) for found in runs(Path("runs"))])
        raise ConfigError(f"{run} is not the directory of a run", fix=near or "dlzoo list runs")
    return Run(path)


def runs(folder: Path) -> list[Run]:
    """The runs below a folder, the newest last."""
    found = [path.parent for path in folder.glob("*/*/config.yaml")]
    return [Run(path) for path in sorted(found, key=lambda path: (path / "config.yaml").stat().st_mtime)]


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all, without secrets.

    Raises:
        StorageError: the disk is full or the place can not be written.
    """
    import tempfile

    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(redact(text))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path.name} can not be written: {error.strerror}", where=str(path.parent)) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes plain values as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def environment() -> dict[str, Any]:
    """Versions, commit and machine; never the process's variables, which may hold secrets."""
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command_line(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": cuda,
        "cuda": torch.version.cuda,
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "slurm_job": slurm_job(os.environ),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0),
    }


def command_line() -> str:
    """The words that started this process, without the folders of the program and without secrets."""
    return redact(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def dlzoo_command() -> str:
    """How `dlzoo` is typed in this shell: by name where that name is this installation's, else by its path."""
    import shutil

    beside = Path(sys.executable).parent / "dlzoo"
    named = shutil.which("dlzoo")
    if named and Path(named).resolve() == beside.resolve():
        return "dlzoo"
    if beside.is_file():
        return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
    return f"{sys.executable} -m dlzoo"


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _commit() -> str | None:
    """The commit of the checkout that dlzoo runs from, "+" behind it where files differ; None outside one."""
    import subprocess

    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        # two short questions; a slow disk must not hold up a run
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (head.stdout.strip() + ("+" if changed.stdout.strip() else "")) or None
