"""A series of your own: a CSV file with a column of dates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlzoo.data.columns import Columns
from dlzoo.data.series import read_series
from dlzoo.datamodules.series import Series, SeriesSplits

__all__ = ["SeriesFile"]


class SeriesFile(Series):
    """One file; the beginning trains, what follows validates, the end tests. Arguments as `Series`, and:

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
        self.path, self.val_fraction, self.test_fraction = Path(path), val_fraction, test_fraction

    def read(self) -> SeriesSplits:
        table = read_series(self.path, self.columns)
        rows = len(table)
        tests, validates = (round(rows * share) for share in (self.test_fraction, self.val_fraction))
        added = f", {table.added} of them not in the file" if table.added else ""
        return SeriesSplits(table, (rows - tests - validates, rows - tests, rows), f"{self.path.name}, {rows:,} rows{added}")
