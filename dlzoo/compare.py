"""`dlzoo compare`: several runs beside each other: what differs in them, how far they came, and a picture of their curves."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlzoo import rundir
from dlzoo.ending import SHOWN
from dlzoo.errors import ConfigError, StorageError, polite, suggest
from dlzoo.rundir import Run

__all__ = ["Comparison", "compare"]

DESCRIPTION = "several runs beside each other: what differs, how far they came, and a picture of their curves"
PLACES = ("run_dir", "runs_dir", "data_dir")  # where files lie does not make a run another one


@dataclass(frozen=True)
class Comparison:
    """Several runs beside each other.

    Args:
        runs: the directories.
        names: of each run what was typed for it and not for all of them; where nothing tells runs apart, the directory.
        metrics: what is compared, such as "val/loss".
        last: of each metric the last value of each run; None where it has none.
        apart: of each metric how far the runs are apart where they are furthest, and the step; None without a
            common step at which all are finite.
        picture: the file of the picture.
    """

    runs: list[str]
    names: list[str]
    metrics: list[str]
    last: dict[str, list[float | None]]
    apart: dict[str, tuple[float, int] | None]
    picture: Path


def compare(runs: Sequence[str | Path], metrics: Sequence[str] = (), out: str | Path = "compare.png") -> Comparison:
    """Reads what runs logged and draws it together. Nothing of the runs is executed.

    Args:
        runs: two or more directories of runs, finished or not.
        metrics: such as "val/loss"; none for the losses of training and validation and the most telling other metric.
        out: the picture to write; its suffix (.png, .svg, .pdf) is the format.

    Raises:
        ConfigError: fewer than two runs, one twice, one that is none, or a metric that no run has.
        StorageError: `out` can not be written.
    """
    from dlzoo.plots.compared import compared
    from dlzoo.plots.figure import save

    found = [rundir.find(run) for run in runs]
    if len({run.dir.resolve() for run in found}) < max(len(found), 2):
        raise ConfigError("there must be two runs or more, each once", where=" ".join(map(str, runs)), fix="dlzoo list runs")
    histories = [run.history for run in found]
    known = sorted(set().union(*histories))
    for metric in metrics:
        if metric not in known:
            fix = suggest(metric, known) or (f"one of {', '.join(known)}" if known else "runs that have logged something")
            raise ConfigError(f"no run has {metric!r}", where="--metric", fix=fix)
    chosen = list(metrics) or _telling(histories)
    if not chosen:
        raise ConfigError("the runs have logged nothing yet", where=" ".join(map(str, runs)), fix="wait for their first steps")
    names = _names(found)
    picture = Path(out)
    try:
        save(compared(dict(zip(names, histories, strict=True)), chosen, _title(found)), picture)
    except (OSError, ValueError) as error:
        raise StorageError(f"the picture can not be written: {error}", where=str(picture), fix="--out FILE.png") from error
    last = {metric: [history[metric][1][-1] if metric in history else None for history in histories] for metric in chosen}
    return Comparison(
        [str(run.dir) for run in found], names, chosen, last, {metric: _apart(metric, histories) for metric in chosen}, picture
    )


def _telling(histories: Sequence[dict]) -> list[str]:
    """The losses, and the most telling other metric of validation."""
    known = set().union(*histories)
    others = [name.replace("test/", "val/") for name in SHOWN if not name.endswith("/loss")]
    other = next((name for name in others if name in known), None)
    return [name for name in ("train/loss", "val/loss", other) if name in known]


def _names(runs: Sequence[Run]) -> list[str]:
    """What tells each run from the others, each name once."""
    typed = [[word for word in run.overrides if word.split("=")[0].lstrip("+") not in PLACES] for run in runs]
    common = set.intersection(*map(set, typed))
    names = [" ".join(word for word in words if word not in common) for words in typed]
    return [name if names.count(name) == 1 and name else str(run.dir) for name, run in zip(names, runs, strict=True)]


def _title(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(str(run.config["name"]) for run in runs))


def _apart(metric: str, histories: Sequence[dict]) -> tuple[float, int] | None:
    """How far the runs are apart where they are furthest, and at which of the steps that all have."""
    if not all(metric in history for history in histories):
        return None
    values = [dict(zip(*history[metric], strict=True)) for history in histories]

    def spread(step: float) -> float:
        found = [each[step] for each in values]
        return max(found) - min(found)

    steps = [step for step in set.intersection(*map(set, values)) if math.isfinite(spread(step))]
    furthest = max(sorted(steps), key=spread, default=None)
    return None if furthest is None else (spread(furthest), int(furthest))


def main(arguments: Sequence[str]) -> None:
    """`dlzoo compare RUN RUN ... [--metric NAME] [--out FILE.png] [--json]`."""
    parser = polite(argparse.ArgumentParser(prog="dlzoo compare", description=DESCRIPTION, allow_abbrev=False))
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the directory of a run; two or more")
    parser.add_argument("--metric", action="append", default=[], help="such as val/loss; may be given several times")
    parser.add_argument("--out", metavar="FILE", default="compare.png", help="the picture to write (compare.png)")
    parser.add_argument("--json", action="store_true", help="JSON on the screen")
    args = parser.parse_args(list(arguments))
    found = compare(args.runs, args.metric, args.out)
    if args.json:
        print(json.dumps(vars(found) | {"picture": str(found.picture)}, indent=2))
        return
    for place, (run, name) in enumerate(zip(found.runs, found.names, strict=True)):
        values = [f"{metric} {value:.4f}" for metric in found.metrics if (value := found.last[metric][place]) is not None]
        print("  ".join([run, *([] if name == run else [name]), *values]))
    for metric, apart in found.apart.items():
        if apart is not None:
            print(f"{metric}: at most {apart[0]:.4g} apart, at step {apart[1]:,}")
    print(found.picture)
