"""`dlzoo tune lr`: a learning rate from a range test, before a run; no config is changed by it.

The composed experiment is trained as it would be (its optimizer, precision, accumulation, clipping, SAM, mixing), for some two
hundred steps on one device, with a schedule that raises the rate by the same factor at each. Lightning's own finder takes all
callbacks away, SAM with them, and reads a slope over the rate itself, which the largest rates decide.
"""

import argparse
import csv
import io
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dlzoo import rundir
from dlzoo.config import check, compose
from dlzoo.errors import ConfigError, NumericalError, StorageError, polite
from dlzoo.optim.range_test import Reading, read

LOW, HIGH, STEPS = 1e-6, 10.0, 200
PART_OF_THE_TRAINING = ("sam",)  # callbacks without which it would be another training


@dataclass(frozen=True)
class Suggestion:
    """What a range test found.

    Args:
        rate: to use as optimizer.lr, in two digits.
        smallest: the rate at which the loss is smallest, twice as much.
        steps: that were made.
        picture: the file.
    """

    rate: float
    smallest: float
    steps: int
    picture: str


def learning_rate(overrides: Sequence[str] = (), low: float = LOW, high: float = HIGH, steps: int = STEPS) -> Suggestion:
    """Tries the rates from `low` to `high` on an experiment.

    Args:
        overrides: as for `train`: "experiment=cifar10_resnet", "optimizer=adamw".
        low: the first rate.
        high: the last.
        steps: optimizer steps on the way.

    Raises:
        ConfigError: of the config, or of the range.
        NumericalError: the losses say nothing; the text says why, and the picture is there all the same.
    """
    if not 0 < low < high:
        raise ConfigError(f"the rates must rise from above 0, got {low:g} to {high:g}", where="--from, --to")
    if steps < 20:
        raise ConfigError(f"a range test takes at least 20 steps, got {steps}", where="--steps")
    cfg = compose(*overrides)
    config = check(cfg, overrides)
    if "lr" not in config["optimizer"]:
        raise ConfigError("this optimizer has no rate", where="optimizer.lr")
    rates, losses = _train(config, low, high, steps)
    found = read(rates, losses)
    folder = _folder(config)
    picture = _leave(folder, config, rates, losses, found)
    if found.rate is None:
        raise NumericalError(
            f"no learning rate can be read off: {found.problem}",
            where=str(picture),
            safe="no config was changed",
            fix=_other_range(found, low, high),
        )
    rate = float(f"{found.rate:.2g}")
    return Suggestion(rate, rates[found.lowest], len(rates), str(picture))


def main(arguments: Sequence[str]) -> None:
    """`dlzoo tune lr [key=value ...]`."""
    parser = polite(
        argparse.ArgumentParser(prog="dlzoo tune", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False)
    )
    parser.add_argument("what", choices=["lr"], help="what to look for: lr, the learning rate")
    parser.add_argument("overrides", nargs="*", help="as for dlzoo train: experiment=NAME, group=choice, key=value")
    parser.add_argument("--from", dest="low", type=float, default=LOW, metavar="RATE", help=f"the first rate ({LOW:g})")
    parser.add_argument("--to", dest="high", type=float, default=HIGH, metavar="RATE", help=f"the last rate ({HIGH:g})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps on the way ({STEPS})")
    parser.add_argument("--json", action="store_true", help="JSON on the screen, for other programs")
    args = parser.parse_intermixed_args(list(arguments))
    found = learning_rate(args.overrides, args.low, args.high, args.steps)
    if args.json:
        print(json.dumps(asdict(found), indent=2))
        return
    words = [word for word in args.overrides if not word.startswith("optimizer.lr=")]
    command = shlex.join([*rundir.dlzoo_command().split(), "train", *words, f"optimizer.lr={found.rate:g}"])
    print(f"the loss is smallest at a rate of {found.smallest:.2g} ({found.steps} steps)")
    print(f"picture: {found.picture}")
    print(f"suggested, half of that; no config was changed:\n  {command}")


def _train(config: dict[str, Any], low: float, high: float, steps: int) -> tuple[list[float], list[float]]:
    """The rates and losses of a training with rising rates."""
    from dlzoo.logs import quiet
    from dlzoo.run import build

    quiet()
    import torch

    kept = {name: node for name, node in config["callbacks"].items() if name in PART_OF_THE_TRAINING}
    # the batch is the experiment's over all its devices, so that one device makes the same steps
    trainer = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None, "max_time": None, "fast_dev_run": False}
    trainer |= {"max_steps": steps, "max_epochs": -1, "min_epochs": None, "limit_val_batches": 0, "enable_checkpointing": False}
    changed = config | {
        "optimizer": config["optimizer"] | {"lr": low},
        "scheduler": {"_target_": "dlzoo.optim.schedules.exponential", "_partial_": True, "final": high / low},
        "callbacks": kept | {"rates": {"_target_": "dlzoo.callbacks.rate_range.RateRange"}},
        "logger": {},
        "trainer": config["trainer"] | trainer,
    }
    print(f"{config['name']}: {steps} steps with rates from {low:g} to {high:g}", file=sys.stderr, flush=True)
    torch.manual_seed(config["seed"])
    task, data, trainer = build(changed)
    trainer.fit(task, datamodule=data)
    watch = next(callback for callback in trainer.callbacks if hasattr(callback, "rates"))
    return watch.rates, watch.losses


def _folder(config: dict[str, Any]) -> Path:
    try:
        if config["run_dir"] and not config["run_dir"].endswith("/new"):
            path = Path(config["run_dir"])
            path.mkdir(parents=True, exist_ok=True)
            return path
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        return rundir.mkdir_new(Path(config["runs_dir"]) / config["name"] / f"tune_lr_{stamp}")
    except OSError as error:
        raise StorageError(
            f"the folder can not be made: {error.strerror}", where=str(error.filename), fix="run_dir=PATH"
        ) from error


def _leave(folder: Path, config: dict[str, Any], rates: list[float], losses: list[float], found: Reading) -> Path:
    """The picture, and its numbers beside it."""
    from dlzoo.plots import figure
    from dlzoo.plots.lr_finder import lr_finder

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["lr", "loss"])
    table.writerows(zip(rates, losses, strict=False))
    rundir.write_text(folder / "lr_finder.csv", text.getvalue())
    lowest = rates[found.lowest] if found.rate else None
    title = f"{config['name']}: {config['optimizer']['_target_'].rsplit('.', 1)[-1]}, learning-rate range test"
    figure.save(lr_finder(rates, losses, found.smooth, lowest, found.rate, title, found.problem), folder / "lr_finder.png")
    return folder / "lr_finder.png"


def _other_range(found: Reading, low: float, high: float) -> str:
    if "still" in found.problem:
        return f"--to {high * 100:g}"
    if "hardly" in found.problem:
        return f"--to {high * 10:g}, more --steps, or debug=overfit: a network that can learn drives one batch's loss to 0"
    return f"--from {low / 1000:g} --to {low * 10:g}, trainer.precision=32, or trainer.gradient_clip_val=1"
