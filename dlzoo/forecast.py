"""`dlzoo forecast`: how a series of the user's goes on, by the network of a run: a table in, a table and a picture out."""

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlzoo import rundir, verbs, zoo
from dlzoo.ending import only
from dlzoo.errors import ConfigError, DataError, polite

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dlzoo.data.series import Table
    from dlzoo.data.series_input import SeriesInput

DESCRIPTION = "how a series goes on: a CSV file with the columns of the run's data in, a CSV file and a picture out"


@dataclass(frozen=True)
class Forecast:
    """What comes after the last row of a table.

    Args:
        dates: text of the date columns, one row a step.
        targets: the names of what is forecast.
        values: in the units of the data, one row a step.
        table: the file that they were written to.
        picture: the file of the picture.
    """

    dates: list[list[str]]
    targets: list[str]
    values: list[list[float]]
    table: Path
    picture: Path


def forecast(run: str | Path, source: str | Path, out: str | Path | None = None, which: str = "best") -> Forecast:
    """Asks the network of a run how a series goes on. Columns and scaling are plain numbers in the run's summary: nothing of
    the run is executed, and its data set need not be here.

    Args:
        run: its directory, or one of its checkpoints.
        source: a CSV file with the columns of the run's data, the same step between dates, and at least as many rows as the
            network is shown. What it forecasts comes after the last row.
        out: the CSV file to write; None takes <source>-forecast.csv beside it. The picture goes beside it.
        which: "best" or "last" weights.

    Raises:
        ConfigError: the run is no forecast, or `out` would be written over `source`.
        DataError: a column is missing, a number or a date can not be read, dates are not regular, or there are too few rows.
        StorageError: `out` can not be written.
    """
    found = rundir.find(run)
    only(found, "forecast", "forecast a series", "melbourne_lstm")
    from dlzoo.data.series import read_series, written
    from dlzoo.data.series_input import SeriesInput

    how = SeriesInput.from_dict(found.summary["preprocess"])
    source = Path(source)
    path = Path(out) if out else source.with_name(f"{source.stem}-forecast.csv")
    if path.resolve() == source.resolve():
        raise ConfigError("the forecast would be written over what it is made from", where=f"--out {path}", fix="another file")
    table = read_series(source, how.columns, step=how.step)
    if len(table) < how.history:
        raise DataError(
            f"{source.name} has {len(table)} rows, and the network is shown {how.history}",
            where=str(source),
            fix="more of the past",
        )
    dates, values = _ahead(verbs.load(run, which), how, table)
    shown = [written(date, how.columns, how.step) for date in dates]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*how.columns.dates, *how.columns.targets])
    writer.writerows([*date, *(f"{value:.7g}" for value in row)] for date, row in zip(shown, values, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_text(path, text.getvalue())
    picture = path.with_suffix(".png")
    _draw(picture, how, table, dates, values, f"{found.summary['name']}: how {source.name} goes on")
    return Forecast(shown, list(how.columns.targets), values.tolist(), path, picture)


def _ahead(net: "object", how: "SeriesInput", table: "Table") -> tuple["np.ndarray", "np.ndarray"]:
    """The dates after the last row of a table and what is forecast for them, in units: (H,), (H, K)."""
    import numpy as np
    import torch

    dates = table.dates[-1] + np.arange(1, how.horizon + 1) * np.timedelta64(how.step, "s")
    x = torch.from_numpy(how.features(table)[-how.history :])[None]
    with torch.inference_mode():
        scaled = net(x)[0].double().numpy()
    return dates, scaled * how.scale + how.offset(dates)


def example_windows(run: rundir.Run, overrides: Sequence[str], count: int = 1000) -> tuple["Tensor", str]:
    """What the network of a forecast is shown, to compare an export with: windows from everywhere in the test part, or noise
    where the data are not here.

    Returns:
        x (B, T, F), and what it is in words.
    """
    import torch

    from dlzoo.config import run_config
    from dlzoo.data.series_input import SeriesInput

    how = SeriesInput.from_dict(run.summary["preprocess"])
    try:
        data = zoo.build(run_config(run, overrides)["data"])
        data.prepare_data()
        features = torch.from_numpy(data.preprocess.features(data.splits.table))
        starts = data.windows("test")
        chosen = starts[torch.linspace(0, len(starts) - 1, min(count, len(starts))).long()]
        x = features[chosen[:, None] + torch.arange(-how.history, 0)]
        return x, f"{len(x)} windows of the test part"
    except DataError as error:
        x = torch.randn(256, how.history, how.columns.width, generator=torch.Generator().manual_seed(0))
        return x, f"noise, for the data is not here: {error.what}"


def _draw(path: Path, how: "SeriesInput", table: "Table", dates: "np.ndarray", values: "np.ndarray", title: str) -> None:
    """A panel for each target: the end of its past, and the forecast beside what came a season before."""
    import numpy as np

    from dlzoo.data.series import carry
    from dlzoo.plots.figure import save
    from dlzoo.plots.forecast import Window, forecasts

    count, steps = len(how.columns.targets), np.arange(how.horizon)
    past = -min(max(3 * how.horizon, 24), len(table))
    numbers = table.values[:, :count]
    ago = len(table) + steps - how.season * (1 + steps // how.season)
    filled = carry(numbers, np.nanmean(numbers, axis=0)) if not np.isnan(numbers).all(0).any() else numbers
    windows = []
    for at in range(count):
        lines = {"forecast": values[:, at]} | ({"seasonal": filled[ago, at]} if ago.min() >= 0 else {})
        windows.append(Window(table.dates[past:], numbers[past:, at], dates, np.zeros(0), lines))
    save(forecasts(windows, f"{title}: {', '.join(how.columns.targets)}"), path)


def main(arguments: Sequence[str]) -> None:
    """`dlzoo forecast RUN FILE.csv [--out FILE.csv] [--last]`."""
    parser = polite(argparse.ArgumentParser(prog="dlzoo forecast", description=DESCRIPTION, allow_abbrev=False))
    parser.add_argument("run", help="the run's directory, or a checkpoint in it")
    parser.add_argument("source", help="a CSV file with the columns of the run's data; the forecast is of what comes after it")
    parser.add_argument("--out", metavar="FILE", help="the CSV file to write (FILE-forecast.csv beside it)")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    args = parser.parse_args(list(arguments))
    found = forecast(args.run, args.source, args.out, "last" if args.last else "best")
    for date, values in zip(found.dates, found.values, strict=True):
        print("  ".join([" ".join(date), *(f"{name} {value:.4g}" for name, value in zip(found.targets, values, strict=True))]))
    print(f"{found.table}, {found.picture}")
