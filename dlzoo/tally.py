"""How a sweep went: the table, results.json and results.csv, the picture, and the commands that go on from it."""

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from math import nan
from pathlib import Path
from statistics import mean, stdev

from dlzoo import rundir, targets
from dlzoo.driver import Record, short

__all__ = ["best", "store", "text"]

WIDEST = 28  # characters of a cell


def best(records: Sequence[Record], mode: str) -> Record | None:
    """The finished job with the best value."""
    found = [record for record in records if record.status == "finished" and record.value is not None]
    if not found:
        return None
    return (min if mode == "min" else max)(found, key=lambda record: record.value or 0.0)


def store(folder: Path, records: Sequence[Record], metric: str, mode: str, shared: Sequence[str]) -> None:
    """Writes results.json, results.csv and sweep.png into the folder of the sweep."""
    from dlzoo.plots.figure import save
    from dlzoo.plots.sweep import sweep

    top = best(records, mode)
    content = {"metric": metric, "mode": mode, "overrides": list(shared), "best": asdict(top) if top else None}
    rundir.write_json(folder / "results.json", content | {"jobs": [asdict(record) for record in records]})
    keys = _keys(records)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["number", *keys, metric, "status", "seconds", "directory", "reason"])
    for record in records:
        own = _own(record)
        row = [record.number, *(own.get(key, "") for key in keys), "" if record.value is None else record.value]
        writer.writerow([*row, record.status, record.seconds, record.run_dir or "", record.reason])
    rundir.write_text(folder / "results.csv", lines.getvalue())
    params = {key: [_plain(_own(record).get(key, "")) for record in records] for key in keys}
    values = [record.value for record in records]
    figure = sweep(
        params, values, [record.status for record in records], [r.number for r in records], metric, mode, folder.name
    )
    save(figure, folder / "sweep.png")


def text(folder: Path, records: Sequence[Record], metric: str, mode: str, shared: Sequence[str], searched: bool) -> str:
    """The last thing on the screen: a row for each job, the best one's commands, and how to go on."""
    me, where = rundir.dlzoo_command(), shlex.quote(str(folder))
    keys = _keys(records)
    names = _short(keys)
    tested = any("test/acc" in record.metrics for record in records)
    header = ["#", *(names[key] for key in keys), metric, *(["test/acc"] if tested else []), "status", "seconds", "directory"]
    rows = [header]
    for record in records:
        own = _own(record)
        row = [str(record.number), *(_cell(own.get(key, "")) for key in keys), _number(record.value)]
        row += [_number(record.metrics.get("test/acc"))] if tested else []
        rows.append([*row, record.status, f"{record.seconds:.0f}", record.run_dir or ""])
    lines = _aligned(rows)
    lines += _over_seeds(records, metric)
    lines += ["", f"{folder}: sweep.png results.csv results.json"]
    flags = targets.flags()
    top = best(records, mode)
    if top is not None:
        spread = f" of {sum(record.status == 'finished' for record in records)} finished" if len(records) > 1 else ""
        kept = [word for word in shared if word != "test=false"]  # the chosen one is measured
        train = shlex.join([*kept, *top.overrides, *flags])
        lines += ["", f"best{spread}: #{top.number}, {metric} {_number(top.value)}"]
        lines += [f"train again  {me} train {train}"]
        lines += [f"evaluate     {me} evaluate {shlex.quote(str(top.run_dir))}"]
    if elsewhere := [f"#{record.number}" for record in records if record.status == "running"]:
        lines.append(f"another driver still has {', '.join(elsewhere)}")
    if any(record.status in ("waiting", "interrupted") for record in records):
        lines.append(f"go on        {me} sweep {where}")
    elif searched:
        lines.append(f"more trials  {me} sweep {where} hparams_search.n_trials={2 * len(records)}")
    elif any(record.status == "failed" for record in records):
        lines.append(f"try again    {me} sweep {where}")
    return "\n".join(lines)


def _over_seeds(records: Sequence[Record], metric: str) -> list[str]:
    """Where the seed is one of several keys: a row for each point without it, mean +- standard deviation over the seeds."""
    keys = [key for key in _keys(records) if key != "seed"]
    if not keys or len(keys) == len(_keys(records)):
        return []
    points: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        points.setdefault(tuple(_own(record).get(key, "") for key in keys), []).append(record)
    columns = [metric] + ["test/acc"] * (metric != "test/acc" and any("test/acc" in record.metrics for record in records))
    rows = [[*(_short(keys)[key] for key in keys), *columns, "seeds"]]
    for point, members in points.items():
        done = [record for record in members if record.status == "finished" and record.value is not None]
        found = [[record.value if name == metric else record.metrics.get(name, nan) for record in done] for name in columns]
        cells = [f"{mean(values):.4f} +- {stdev(values) if len(values) > 1 else 0:.4f}" if values else "" for values in found]
        rows.append([*map(_cell, point), *cells, str(len(done))])
    return ["", "over the seeds, mean +- standard deviation:", *_aligned(rows)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _own(record: Record) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in record.overrides)


def _keys(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in _own(record)))


def _short(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, where that is enough to tell them apart."""
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def _plain(value: str) -> float | str:
    try:
        number = json.loads(value)
    except ValueError:
        return value
    return number if isinstance(number, int | float) and not isinstance(number, bool) else value


def _cell(value: str) -> str:
    shown = short(f"={value}")[1:]
    return shown if len(shown) <= WIDEST else shown[: WIDEST - 3] + "..."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"
