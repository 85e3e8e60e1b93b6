"""A series of your own: a CSV file with a column of dates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlzoo.data.columns import Columns
from dlzoo.data.series import read_series
from dlzoo.data.series_input import SeriesInput
from dlzoo.datamodules.series import Series, SeriesSplits
from dlzoo.errors import ConfigError

__all__ = ["SeriesFile"]

KEPT = "series.json"  # in the run directory
FITTED = ("step", "mean", "std", "usual")  # what is found in the data; all else is chosen


class SeriesFile(Series):
    """One file; the beginning trains, what follows validates, the end tests. The scaling is kept in the run directory: where
    the file has grown since, the network is still shown what it was trained on. Arguments as `Series`, and:

    Args:
        path: the file, in UTF-8, with a line of names; at regular dates, of which some may be left out.
        dates: the column of the date, or four of year, month, day and hour.
        targets: columns that are forecast.
        inputs: columns of further numbers.
        texts: columns of texts, each with "compass" (directions of the wind) or its words.
        masks: columns for which the network is told whether the value is known.
        calendar: what it is told of the date: of "hour", "weekday" and "yearday".
        val_fraction: share of the rows that validates.
        test_fraction: share that tests.
        run_dir: where the scaling is kept; None keeps it nowhere.

    Raises:
        ValueError: val_fraction and test_fraction are not above 0, or leave nothing to train on.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dates: Sequence[str],
        targets: Sequence[str],
        inputs: Sequence[str],
        texts: dict[str, Any],
        masks: Sequence[str],
        calendar: Sequence[str],
        features: int,
        outputs: int,
        history: int,
        horizon: int,
        season: int,
        yearly: int = 0,
        daily: int = 0,
        deviations: bool = False,
        ar: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        seed: int = 0,
        run_dir: str | Path | None = None,
    ) -> None:
        super().__init__(
            Columns(dates, targets, inputs, texts, masks, calendar),
            features=features,
            outputs=outputs,
            history=history,
            horizon=horizon,
            season=season,
            yearly=yearly,
            daily=daily,
            deviations=deviations,
            ar=ar,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            seed=seed,
        )
        if val_fraction <= 0 or test_fraction <= 0 or val_fraction + test_fraction >= 1:
            raise ValueError(
                f"val_fraction and test_fraction must be above 0, and together below 1, got {val_fraction} and {test_fraction}"
            )
        self.kept = Path(run_dir) / KEPT if run_dir else None
        self.path, self.val_fraction, self.test_fraction = Path(path), val_fraction, test_fraction

    def read(self) -> SeriesSplits:
        table = read_series(self.path, self.columns)
        rows = len(table)
        tests, validates = (round(rows * share) for share in (self.test_fraction, self.val_fraction))
        added = f", {table.added} of them not in the file" if table.added else ""
        return SeriesSplits(table, (rows - tests - validates, rows - tests, rows), f"{self.path.name}, {rows:,} rows{added}")

    @property
    def preprocess(self) -> SeriesInput:
        """The run's, where it has one; otherwise fitted, and kept with the run.

        Raises:
            ConfigError: the run's is of other columns, or of another history or horizon.
        """
        if self._fitted is None and self.kept is not None:
            before = json.loads(self.kept.read_text(encoding="utf-8")) if self.kept.is_file() else None
            fitted = super().preprocess
            if before is None:
                if self.kept.parent.is_dir():
                    self.kept.write_text(json.dumps(fitted.as_dict(), indent=2), encoding="utf-8")
                return fitted
            now = json.loads(json.dumps(fitted.as_dict()))
            other = [name for name in now if name not in FITTED and now[name] != before.get(name)]
            if other:
                what = f"the run was begun with another {', '.join(other)} of its series"
                raise ConfigError(what, where=str(self.kept), fix="the values in its config.yaml, or a new run")
            self._fitted = SeriesInput.from_dict(before)
        return super().preprocess
