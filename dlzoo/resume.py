"""Which run goes on, and whether it may: a model, data or a seed of another kind would be another run."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlzoo import checkpoints
from dlzoo.errors import CheckpointError, ConfigError
from dlzoo.launch import RUN_DIR
from dlzoo.rundir import Run, find, runs
from dlzoo.slurm import slurm_job

# what may be another on resume, because it changes no number: where data lie, how many processes read them
FREE = {"data.data_dir", "data.root", "data.num_workers", "data.eval_batch_size", "data.channels_last"}
FREE |= {"data.run_dir", "data.token_dir", "data.eval_batch_tokens"}
FIXED = ("model", "data", "seed")


def going_on(cfg: Any, overrides: Sequence[str]) -> Path | None:
    """The directory of the run that a config goes on with; None where it begins one.

    That is the case with `ckpt_path=auto` where the same command has begun a run before (or `run_dir` holds one), with a
    `ckpt_path` inside `run_dir`, and in a job that SLURM has put back into its queue.

    Args:
        cfg: with name, runs_dir, run_dir and ckpt_path.
        overrides: what was typed.
    """
    wanted, folder = cfg.ckpt_path, Path(cfg.run_dir) if cfg.run_dir else None
    job = slurm_job(os.environ) if int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0) else None
    if wanted not in (None, "auto"):
        inside = folder is not None and folder.resolve() in [Path(wanted).resolve(), *Path(wanted).resolve().parents]
        return folder if inside else None
    if wanted is None and job is None:
        return None
    if folder is not None:
        return folder if (folder / "config.yaml").is_file() else None
    found = own(Path(cfg.runs_dir), str(cfg.name), overrides, job)
    return found.dir if found else None


def checkpoint(wanted: str | None, directory: Path | None) -> str | None:
    """The checkpoint to go on from: the one that is named, or a directory's newest that is whole.

    Args:
        wanted: ckpt_path: a checkpoint, the directory of a run, "auto" or None.
        directory: the run that goes on, if it is one.

    Raises:
        CheckpointError: there is none, or none is whole.
    """
    if wanted not in (None, "auto"):
        path = Path(wanted)
        if (path / "checkpoints").is_dir():
            directory = path
        else:
            if path.exists() and (reason := checkpoints.damage(path)):
                checkpoints.read_checkpoint(path)  # what is unsafe is told as that
                raise CheckpointError(f"{path.name} is damaged: {reason}", where=wanted, fix=f"ckpt_path={path.parent.parent}")
            return wanted
    found = checkpoints.newest(directory / "checkpoints") if directory else None
    return str(found) if found else None


def differences(path: Path, config: Mapping[str, Any]) -> list[str]:
    """What differs between the config of the run that a checkpoint belongs to and the one that goes on from it.

    Raises:
        ConfigError: the model, the data or the seed do.
    """
    stored = path.parent.parent / "config.yaml"
    if not stored.is_file():
        return []
    before = Run(path.parent.parent).config
    return require_same(part(before), part(config))


def chosen(named: str | None, folder: Path) -> Run:
    """The run that `dlzoo resume` means: the named one, or the latest unfinished one, which is said.

    Args:
        named: its directory, if one was typed.
        folder: where it is looked for otherwise.

    Raises:
        ConfigError: there is none.
    """
    if RUN_DIR in os.environ:  # a process of a run that goes on: its first one has chosen
        return find(os.environ[RUN_DIR])
    if named:
        return find(named)
    found = unfinished(folder)
    if found is None:
        raise ConfigError(f"there is no unfinished run in {folder}", where="dlzoo resume", fix="dlzoo list runs")
    print(f"{found.dir}: {found.status}", flush=True)
    return found


def unfinished(folder: Path) -> Run | None:
    """The newest run below a folder that was begun, has not finished, and that no process is at."""
    found = [run for run in runs(folder) if run.status not in ("finished", "running") and _checkpointed(run)]
    return found[-1] if found else None


def own(folder: Path, name: str, overrides: Sequence[str], job: str | None) -> Run | None:
    """The run that the same command began before: that of the same SLURM job, or the newest one that has not finished.

    Args:
        folder: of all runs.
        name: of the run.
        overrides: what was typed.
        job: SLURM's number of this job; None looks among all.
    """
    typed = [word for word in overrides if not word.startswith("ckpt_path=")]
    for run in reversed(runs(folder)):
        if run.dir.parent.name != name or run.status in ("finished", "running"):
            continue
        if [word for word in run.overrides if not word.startswith("ckpt_path=")] != typed:
            continue
        if job is None or _job(run) == job:
            return run
    return None


def _job(run: Run) -> str | None:
    try:
        return json.loads((run.dir / "environment.json").read_text(encoding="utf-8")).get("slurm_job")
    except (OSError, ValueError):
        return None


def _checkpointed(run: Run) -> bool:
    return any((run.dir / "checkpoints").glob("*.ckpt"))


def require_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compares the config of a checkpoint with that of the run that goes on from it.

    Returns:
        what differs and may, as "key: before -> now".

    Raises:
        ConfigError: the model, the data or the seed are others.
    """
    changes = list(_changes(before, now, ""))
    wrong = [change for change in changes if change[0].split(".", 1)[0] in FIXED and change[0] not in FREE]
    if wrong:
        key, old, new = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ConfigError(
            f"{key} was {old!r} and is {new!r}{more}: that would not be the same run",
            where=f"{key}={new}",
            safe="the run's directory was not changed",
            fix="leave the model, the data and the seed as they were, or begin a run of its own without ckpt_path",
        )
    return [f"{key}: {old} -> {new}" for key, old, new in changes]


def part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a config, to be compared with later."""
    return {key: config[key] for key in (*FIXED, "task", "optimizer", "scheduler")}


def _changes(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _changes(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield key, before, now
