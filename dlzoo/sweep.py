"""Many runs from one command line: every point of a grid, or a search on Optuna. Each is a process and a directory of its own.

`train.py -m seed=1,2,3` and `dlzoo sweep seed=1,2,3` are the same; with hparams_search=NAME it is a search. Its state lies in
<runs_dir>/sweeps/<name>/, and `dlzoo sweep DIR` goes on with what is not done.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from dlzoo import config, driver, jobs, rundir, schema, tally
from dlzoo.errors import ConfigError, SweepError, suggest
from dlzoo.grid import Grid, words_of
from dlzoo.mistakes import key_of
from dlzoo.signals import Stopped

if TYPE_CHECKING:
    from dlzoo.schema import PositiveInt

__all__ = ["Plan", "begin", "go_on", "run"]

GROUP = "hparams_search"
FILE = "sweep.yaml"
MAY_CHANGE = ("n_trials", "workers")  # of a search that has begun


@dataclass
class Options:
    """configs/hparams_search: what a search may set."""

    name: str | None = None
    n_trials: PositiveInt = 20
    workers: PositiveInt = 1
    storage: Literal["journal", "sqlite"] = "journal"
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["median", "halving", "none"] = "median"
    startup: PositiveInt = 5
    warmup: PositiveInt = 1
    overrides: list[str] = field(default_factory=list)
    params: dict = field(default_factory=dict)


@dataclass
class Plan:
    """What a sweep does, as it stands in its folder.

    Args:
        overrides: those that all jobs share.
        metric: what is looked at, or searched for.
        mode: "min" or "max": which way is better.
        seed: of the search; the jobs have theirs from their config.
        config_dir: a folder of the user's own configs.
        named_logger: the config key of a name for each job's run, where a logger has one.
        space: config key -> search space; None for a grid.
        options: of the search.
    """

    overrides: list[str]
    metric: str
    mode: str
    seed: int = 0
    config_dir: str | None = None
    named_logger: str | None = None
    space: dict[str, dict[str, Any]] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def store(self, folder: Path) -> None:
        rundir.write_text(folder / FILE, yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True))

    @staticmethod
    def read(folder: Path) -> Plan:
        """The plan of a sweep that has begun.

        Raises:
            ConfigError: there is none in this folder.
        """
        try:
            return Plan(**yaml.safe_load((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            near = {path.parent for place in (folder, folder.parent, Path("runs/sweeps")) for path in place.glob(f"*/{FILE}")}
            known = sorted(map(str, near))
            fix = suggest(str(folder), known) or (f"one of {', '.join(known[-3:])}" if known else "dlzoo sweep --help")
            raise ConfigError(f"{folder} is not the folder of a sweep", where=str(folder), fix=fix) from error


def begin(overrides: Sequence[str], config_dir: str | None = None) -> tuple[Path, Plan]:
    """Writes down what a command line asks for; a search of the same name that has begun goes on.

    Args:
        overrides: with values in Hydra's grammar of sweeps: 1,2,3, choice(), range(), glob(), and interval() in a search.
        config_dir: a folder of the user's own configs.

    Raises:
        ConfigError: a job that would not start, or another search of this name.
    """
    keys = {key_of(word).split(".", 1)[0] for word in overrides}
    if "run_dir" in keys:
        raise ConfigError("each run of a sweep has a directory of its own", where="run_dir", fix="runs_dir=PATH")
    try:
        return _search(overrides, config_dir) if GROUP in keys else _grid(overrides, config_dir)
    except HydraException as error:
        raise ConfigError(
            str(error).strip().splitlines()[0], where=" ".join(overrides), fix="in quotes: 'key=choice(a,b)'"
        ) from error


def go_on(folder: Path, overrides: Sequence[str] = ()) -> tuple[Path, Plan]:
    """A sweep that has begun; of a search, the number of trials may be another."""
    plan = Plan.read(folder)
    if plan.space is None:
        if overrides:
            raise ConfigError("the jobs of a grid are fixed", where=overrides[0], fix=f"dlzoo sweep {folder}")
        Grid(folder, plan.metric, plan.mode).retry()
        return folder, plan
    for word in overrides:
        key, _, value = word.partition("=")
        name = key.removeprefix(f"{GROUP}.")
        if name not in MAY_CHANGE:
            raise ConfigError(
                f"{key} of a search that has begun can not change", where=word, fix=f"{GROUP}.n_trials=N, {GROUP}.workers=N"
            )
        plan.options[name] = yaml.safe_load(value)
    _check_options(plan.options, overrides)
    with FileLock(folder / "lock"):
        plan.store(folder)
    return folder, plan


def run(folder: Path, plan: Plan, workers: int | None = None, command: Sequence[str] = jobs.COMMAND) -> None:
    """Runs what is not done yet, then shows and stores how all of it went.

    Args:
        folder: of the sweep.
        plan: what it does.
        workers: how many jobs at a time.
        command: what a job is started by.

    Raises:
        SweepError: some of the jobs failed.
        Stopped: it was asked to stop; its jobs have saved.
    """
    source = Grid(folder, plan.metric, plan.mode) if plan.space is None else _search_source(folder, plan)
    done = sum(record.status in driver.DONE for record in source.records())
    kind = ("job" if plan.space is None else "trial") + "s" * (source.total != 1)
    print(f"{folder}: {source.total} {kind}, {done} done, {plan.metric} {plan.mode}", flush=True)
    words = [*(["--config-dir", plan.config_dir] if plan.config_dir else []), *plan.overrides]
    stopped = driver.drive(source, folder, words, workers or plan.options.get("workers", 1), command, plan.named_logger)
    records = source.records()
    tally.store(folder, records, plan.metric, plan.mode, words)
    print("\n" + tally.text(folder, records, plan.metric, plan.mode, words, searched=plan.space is not None), flush=True)
    if stopped:
        raise Stopped(stopped)
    failed = [record for record in records if record.status == "failed"]
    if failed:
        names = ", ".join(" ".join([f"#{record.number}", *map(driver.short, record.overrides)]) for record in failed[:3])
        raise SweepError(
            f"{len(failed)} of {source.total} failed: {names}{', ...' if len(failed) > 3 else ''}",
            where=str(folder / f"{failed[0].number:03d}.log"),
            safe="the results of the others",
        )


# --- a grid


def _grid(overrides: Sequence[str], config_dir: str | None) -> tuple[Path, Plan]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = _parse(overrides, config_dir)
    if endless := [one for one in parsed if one.is_sweep_override() and not one.is_discrete_sweep()]:
        raise ConfigError(
            f"{endless[0].get_key_element()} has no list of values: an interval is for a search",
            where=endless[0].input_line or "",
            fix=f"dlzoo sweep {GROUP}=plain '{endless[0].input_line}'",
        )
    points = BasicSweeper.split_arguments(parsed, None)[0]
    swept = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    shared = [one.input_line or "" for one in parsed if not one.is_sweep_override()]
    own = [[word for word in point if word.split("=", 1)[0] in swept] for point in points]
    for number, words in enumerate(own, 1):
        try:
            composed = config.compose(*shared, *words, config_dir=config_dir)
        except ConfigError as error:
            what = f"job {number} of {len(own)}: {error.what}"
            raise ConfigError(what, where=error.where, safe="nothing was run", fix=error.fix) from error
    plan = _plan(shared, composed, config_dir)
    sweeps = Path(str(composed.runs_dir)) / "sweeps"
    folder = rundir.mkdir_new(sweeps / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    plan.store(folder)
    Grid(folder, plan.metric, plan.mode).create(own)
    return folder, plan


# --- a search


def _search(overrides: Sequence[str], config_dir: str | None) -> tuple[Path, Plan]:
    parsed = _parse(overrides, config_dir)
    given = [one for one in parsed if key_of(one.input_line or "").split(".", 1)[0] == GROUP]
    asked = [one for one in parsed if one not in given]
    _check_options(options := config.search_options([one.input_line or "" for one in given], config_dir), overrides)
    if options["sampler"] == "grid":  # a comparison with a name: every point of it
        return _grid(words_of(options, [one.input_line or "" for one in asked]), config_dir)
    _require_optuna()
    params = {key: f"{key}={value}" for key, value in options["params"].items()}
    params |= {one.get_key_element(): one.input_line or "" for one in asked if one.is_sweep_override()}
    fixed = {key_of(word): word for word in options["overrides"]}
    fixed |= {key_of(one.input_line or ""): one.input_line or "" for one in asked if not one.is_sweep_override()}
    space = {key: _space(one) for key, word in params.items() if key not in fixed for one in _parse([word], config_dir)}
    if not space:
        raise ConfigError(
            "nothing is searched for", where=f"{GROUP}={options['name']}", fix="'optimizer.lr=tag(log,interval(1e-3,1))'"
        )
    shared = list(fixed.values())
    corners = {key: one.get("choices") or [one["low"], one["high"]] for key, one in space.items()}
    for key, values in corners.items():
        for value in values:
            point = {other: others[0] for other, others in corners.items()} | {key: value}
            composed = config.compose(*shared, *(f"{k}={v}" for k, v in point.items()), config_dir=config_dir)
    metric = str(composed.optimized_metric)
    if metric.startswith("test/"):
        raise ConfigError(
            "a search that looks at the test split leaves nothing to measure with",
            where=metric,
            fix="optimized_metric=val/loss",
        )
    plan = _plan(shared, composed, config_dir, space=space, options=options)
    folder = Path(str(composed.runs_dir)) / "sweeps" / options["name"]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if (folder / FILE).is_file():
            _require_same(folder, plan)
        plan.store(folder)
    return folder, plan


def _search_source(folder: Path, plan: Plan) -> Any:
    _require_optuna()
    from dlzoo.study import Search

    kept = {key: plan.options[key] for key in ("storage", "sampler", "pruner", "startup", "warmup")}
    assert plan.space is not None
    return Search(folder, plan.metric, plan.mode, plan.space, plan.options["n_trials"], plan.seed, **kept)


def _check_options(options: Mapping[str, Any], overrides: Sequence[str]) -> None:
    for fault in schema.dataclass_faults(options, Options, GROUP):
        where = next((word for word in overrides if key_of(word) == fault.key), fault.key)
        raise ConfigError(fault.text, where=where, fix=fault.hint)


def _require_same(folder: Path, plan: Plan) -> None:
    """A search that has begun goes on only as what it is: its trials are compared with each other."""
    before = Plan.read(folder)
    for name in ("overrides", "metric", "mode", "seed", "space"):
        old, new = getattr(before, name), getattr(plan, name)
        if old != new:
            raise ConfigError(
                f"{folder} has trials of another search: its {name} {'is' if name != 'overrides' else 'are'} {old}, not {new}"[
                    :390
                ],
                where=str(folder / FILE),
                safe="nothing in it was touched",
                fix=f"{GROUP}.name=ANOTHER, or `dlzoo sweep {folder}` to go on with that one",
            )


def _require_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("a search needs Optuna, which is not installed", where=GROUP, fix='pip install "dlzoo[sweep]"')


def _space(one: Override) -> dict[str, Any]:
    """A value in Hydra's grammar of sweeps as what `study.distribution` takes."""
    value = one.value()
    where = one.input_line or ""
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low < high:
            raise ConfigError(f"an interval goes from less to more, not from {low} to {high}", where=where)
        whole = "int" in value.tags or isinstance(low, int)
        low, high = (int(low), int(high)) if whole else (float(low), float(high))
        if "log" in value.tags and low <= 0:
            raise ConfigError("a logarithm needs a number above 0", where=where)
        return {"low": low, "high": high, "log": "log" in value.tags}
    if isinstance(value, RangeSweep):
        found = list(value.range())
        if value.step is not None and value.step > 0 and len(found) > 1 and all(isinstance(number, int) for number in found):
            return {"low": found[0], "high": found[-1], "step": int(value.step)}
        return {"choices": [str(number) for number in one.sweep_string_iterator()]}
    if isinstance(value, ChoiceSweep) or one.is_sweep_override():
        return {"choices": list(one.sweep_string_iterator())}
    raise ConfigError(
        f"{where} is one value", where=f"{GROUP}.params", fix="interval(a,b), tag(log,interval(a,b)), choice(a,b), range(a,b)"
    )


def _plan(shared: list[str], composed: Any, config_dir: str | None, **more: Any) -> Plan:
    named = "logger.wandb.name" if "wandb" in composed.logger else None
    judged = str(composed.optimized_metric), str(composed.optimized_mode)
    return Plan(shared, *judged, int(composed.seed), config_dir, named, **more)


def _parse(overrides: Sequence[str], config_dir: str | None) -> list[Override]:
    return OverridesParser.create(config_loader=config.loader(config_dir)).parse_overrides(list(overrides))


def main(arguments: Sequence[str]) -> None:
    """`dlzoo sweep [DIR] [key=value ...] [--workers N] [--config-dir FOLDER]`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="dlzoo sweep", description=HELP, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="[DIR] key=value", help="a sweep to go on with, or what to run")
    parser.add_argument("--workers", type=int, metavar="N", help="runs at a time")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder of your own configs")
    args = parser.parse_intermixed_args(list(arguments))
    words = args.overrides
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {args.workers}", where="--workers")
    if not words:
        raise ConfigError("nothing to sweep", where="dlzoo sweep", fix="dlzoo sweep seed=1,2,3, or dlzoo sweep --help")
    if "=" not in words[0]:
        folder, plan = go_on(Path(words[0]), words[1:])
    else:
        folder, plan = begin(words, args.config_dir and os.path.abspath(args.config_dir))
    run(folder, plan, args.workers)


HELP = """many runs from one command line, each a process and a directory of its own

  dlzoo sweep seed=1,2,3 optimizer.lr=0.1,0.01       every point of a grid, as train.py -m does
  dlzoo sweep hparams_search=digits_optuna           a search on Optuna; the same again goes on with it, or helps
  dlzoo sweep hparams_search=hymenoptera_transfer    a grid with a name (sampler: grid)
  dlzoo sweep hparams_search=plain 'optimizer.lr=tag(log,interval(1e-3,1))' experiment=cifar10_resnet
  dlzoo sweep runs/sweeps/NAME                       goes on with what is not done
  dlzoo sweep runs/sweeps/NAME hparams_search.n_trials=40"""
