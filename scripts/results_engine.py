"""The parts of RESULTS.md that are about the engine: kills that a run went on from, the same training on several devices."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Table = Callable[..., str]


def kill_table(path: Path, table: Table, where: Callable[[Mapping[str, Any]], str]) -> str:
    """What scripts/kill_test.py found: a row for each set-up.

    Args:
        path: the file that it wrote.
        table: makes a table of a header and rows.
        where: machine, versions and commit in words.
    """
    if not path.is_file():
        return "Not measured yet: `python scripts/kill_test.py --out results/kills.json`."
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for setup in content["setups"]:
        steps = [run["step"] for run in setup["runs"]]
        rows.append(
            [
                setup["setup"],
                f"{setup['bit_identical']} of {setup['kills']}",
                f"{min(steps)} to {max(steps)} of {setup['runs'][0]['of']}",
                f"`{setup['overrides']}`",
            ]
        )
    said = (
        f"`{content['command']}`, seed {content['seed']}: SIGKILL at random steps, up to three in a run, then `dlzoo resume`. "
        "Same: every loss, metric and rate in metrics.csv by its hexadecimal form, and the SHA-256 of final weights, averaged "
        f"weights, optimizer, schedule and random numbers. {where(content['machine'])}."
    )
    return f"{said}\n\n{table(['set-up', 'went on with the same bits', 'killed at step', 'overrides'], rows)}"


def device_table(path: Path, table: Table, where: Callable[[Mapping[str, Any]], str]) -> str:
    """What scripts/devices.py found: a row for each trainer, beside one process.

    Args:
        path: the file that it wrote.
        table: makes a table of a header and rows.
        where: machine, versions and commit in words.
    """
    if not path.is_file():
        return "Not measured yet: `python scripts/devices.py`."
    parts = []
    for device, content in json.loads(path.read_text(encoding="utf-8")).items():
        rows = [
            [
                f"`trainer={row['trainer']}`",
                row["precision"],
                str(row["processes"]),
                *(f"{row[name]:.1e}" if row[name] else "0" for name in ("train/loss", "val/loss", "test/loss")),
                *(f"{row[name]:.1e}" if row[name] else "0" for name in ("val/acc", "test/acc")),
                f"{row['gpu_memory_mb'] or row['memory_mb']:,} MB",
            ]
            for row in content["parity"]
        ]
        names = ["trainer", "precision", "processes", "largest of train/loss", "val/loss", "test/loss", "val/acc", "test/acc"]
        head = f"`python scripts/devices.py{' --gpu' if device == 'gpu' else ''}`: 20 steps at the same global batch; relative "
        head += (
            "differences of the losses, absolute ones of the accuracies, to the first row; memory is the largest of a process"
        )
        parts.append(f"{head}. {where(content['machine'])}.\n\n{table([*names, 'memory'], rows)}")
    return "\n\n".join(parts)
