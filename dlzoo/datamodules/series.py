"""Series as LightningDataModules: one table in memory, windows of it, and the baselines that a network has to beat."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlzoo.data.baselines import Baselines, autoregression, climate, harmonics, seasonal_error
from dlzoo.data.columns import Columns
from dlzoo.data.download import fetch
from dlzoo.data.series import Table, carry, read_series, written
from dlzoo.data.series_input import SeriesInput
from dlzoo.data.window_batches import WindowBatches
from dlzoo.datamodules.in_memory import InMemory
from dlzoo.errors import ConfigError, DataError

__all__ = ["PublishedSeries", "Series", "SeriesSplits"]


class SeriesSplits(NamedTuple):
    """A table, and the rows at which its training, validation and test parts end."""

    table: Table
    ends: tuple[int, int, int]
    edition: str = ""


class Series(InMemory):
    """What all series share: scaling, windows, baselines. A series is a subclass that reads a table and says where it is cut.

    Scaling is fitted on the training part alone. A window of validation or test may reach back into the part before for the
    past that the network is shown; what it forecasts lies in its own part. A missing value is shown as the last known one;
    where a target is missing, nothing is learned or measured.

    Args:
        columns: of the table.
        features: how many numbers the network is shown of each row; must be what the columns give.
        outputs: how many targets; likewise.
        history: rows that the network is shown.
        horizon: rows that it forecasts.
        season: rows of a season, for the seasonal baseline and for MASE.
        yearly: harmonics of the year in the climatology; 0 for none.
        daily: harmonics of the day in it.
        deviations: the network is shown, and forecasts, how targets differ from the climatology.
        ar: order of the autoregression among the baselines; 0 leaves it out.
        batch_size: windows a training batch, over all devices together.
        eval_batch_size: windows a validation or test batch.
        seed: of the order of the windows.

    Batch:
        x (B, T, F), y (B, H, K), scaled, NaN where a target is missing, and the rows (B,) at which y begins.

    Raises:
        ValueError: a size is below 1, a number of harmonics or the order is negative, deviations from no climatology.
        ConfigError: features or outputs is not what the columns give.
    """

    classes: ClassVar[tuple[str, ...]] = ()  # a series has none
    validates = True

    def __init__(
        self,
        columns: Columns,
        *,
        features: int,
        outputs: int,
        history: int,
        horizon: int,
        season: int,
        yearly: int,
        daily: int,
        deviations: bool,
        ar: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        for name, value in (("history", history), ("horizon", horizon), ("season", season)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in (("yearly", yearly), ("daily", daily), ("ar", ar)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or above, got {value}")
        if deviations and not yearly + daily:
            raise ValueError("deviations are from a climatology: yearly or daily must be above 0")
        for name, given, found in (("features", features, columns.width), ("outputs", outputs, len(columns.targets))):
            if given != found:
                what = f"the columns give {found} {name}, and the network is to be built for {given}"
                raise ConfigError(what, where=f"data.{name}", fix=f"data.{name}={found}")
        self.columns, self.history, self.horizon, self.season = columns, history, horizon, season
        self.yearly, self.daily, self.deviations, self.ar = yearly, daily, deviations, ar
        self._fitted: SeriesInput | None = None
        self._placed: dict[tuple[str, torch.device], Any] = {}

    # --- for a subclass

    @abstractmethod
    def read(self) -> SeriesSplits:
        """The table, and where it is cut."""

    def check(self, splits: SeriesSplits) -> None:
        first = self.history
        for split, end in zip(("training", "validation", "test"), splits.ends, strict=True):
            if end - first < self.horizon or not len(self._starts(splits.table, first, end)):
                raise DataError(
                    f"the {split} part of {type(self).__name__} has no window of {self.history} rows before {self.horizon}",
                    where="data.history, data.horizon",
                    fix="more rows, or a smaller data.history",
                )
            first = end
        if splits.ends[0] <= max(self.season, self.ar):
            what = f"the training part has {splits.ends[0]} rows, and a season {self.season}"
            raise DataError(what, where="data.season", fix="a shorter data.season and a smaller data.ar, or more rows")

    # --- what a network is given

    @property
    def preprocess(self) -> SeriesInput:
        """Fitted when first asked for."""
        if self._fitted is None:
            self._fitted = SeriesInput.fit(
                self.splits.table,
                slice(0, self.splits.ends[0]),
                self.columns,
                history=self.history,
                horizon=self.horizon,
                season=self.season,
                yearly=self.yearly,
                daily=self.daily,
                deviations=self.deviations,
            )
        return self._fitted

    @property
    def dates(self) -> np.ndarray:
        """Of all rows: (N,), datetime64[s]."""
        return self.splits.table.dates

    @property
    def values(self) -> np.ndarray:
        """The targets in their own units, NaN where they are missing: (N, K)."""
        return self.splits.table.values[:, : len(self.columns.targets)]

    def test_images(self, count: int) -> Any:
        """What draws pictures of inputs asks for some; a series has none.

        Raises:
            DataError: always.
        """
        raise DataError("a series has no pictures to look at", where=type(self).__name__)

    def windows(self, split: str) -> Tensor:
        """The rows at which the windows of "train", "val" or "test" begin to forecast: (W,)."""
        ends = (self.history, *self.splits.ends)
        at = ("train", "val", "test").index(split)
        return torch.from_numpy(self._starts(self.splits.table, ends[at], ends[at + 1]))

    def train_dataloader(self) -> WindowBatches:
        return self._batches("train", self.batch_size, seed=self.seed, **self.training())

    def val_dataloader(self) -> WindowBatches:
        return self._batches("val", self.eval_batch_size)

    def test_dataloader(self) -> WindowBatches:
        return self._batches("test", self.eval_batch_size)

    def write_example(self, path: Path) -> None:
        """The newest rows, as many as a forecast needs, as a table of the kind that was read."""
        table, columns = self.splits.table, self.columns
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns.names)
            for row in range(len(table) - self.history, len(table)):
                numbers = ["NA" if np.isnan(value) else f"{value:.10g}" for value in table.values[row]]
                words = (column[row] for column in table.texts.values())
                writer.writerow([*written(table.dates[row], columns, table.step), *numbers, *words])

    # --- what it is measured by

    @property
    def season_error(self) -> np.ndarray:
        """Mean absolute error of the seasonal baseline in the training part, for MASE: (K,)."""
        return seasonal_error(self.values[: self.splits.ends[0]], self.season)

    def in_units(self, y: Tensor, at: Tensor) -> Tensor:
        """Scaled targets, or forecasts of them, in the data's own units: (B, H, K) from rows (B,) on."""
        offset, scale = self._on(at.device, "units", self._units)
        return y * scale + offset[at[:, None] + torch.arange(self.horizon, device=at.device)]

    def baselines(self, at: Tensor, stage: str) -> dict[str, Tensor]:
        """Name -> what it forecasts, in the data's own units: (B, H, K). They are fitted to all that lies before the part:
        for "val" the training part, for "test" the validation part too, for they have nothing that is chosen by it."""
        return self._on(at.device, stage, lambda: self._fit_baselines(stage))(at)

    @property
    def rivals(self) -> tuple[str, ...]:
        """The names of the baselines."""
        optional = {"climatology": self.yearly + self.daily, "ar": self.ar}
        return ("persistence", "seasonal", *(name for name, there in optional.items() if there))

    def _units(self) -> tuple[Tensor, Tensor]:
        offset, scale = self.preprocess.offset(self.dates), self.preprocess.scale
        return torch.tensor(offset, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32)

    def _fit_baselines(self, stage: str) -> Baselines:
        end = self.splits.ends[{"val": 0, "test": 1}[stage]]
        usual, factors = None, None
        if self.yearly + self.daily:
            fitted = climate(self.dates[:end], self.values[:end], self.yearly, self.daily)
            usual = harmonics(self.dates, self.yearly, self.daily) @ fitted
        if self.ar:
            factors = autoregression((self.values if usual is None else self.values - usual)[:end], self.ar)
        whole = carry(self.values, np.nanmean(self.values[:end], axis=0))
        parts = [None if part is None else torch.tensor(part, dtype=torch.float32) for part in (whole, usual, factors)]
        return Baselines(parts[0], self.horizon, self.season, *parts[1:])

    def _on(self, device: torch.device, name: str, make: Any) -> Any:
        """What `make` makes, once for each device."""
        if (name, device) not in self._placed:
            made = make()
            moved = tuple(part.to(device) for part in made) if isinstance(made, tuple) else made.to(device)
            self._placed[name, device] = moved
        return self._placed[name, device]

    def _starts(self, table: Table, first: int, end: int) -> np.ndarray:
        """Rows from which a window forecasts rows of first .. end, at least one of them known."""
        known = ~np.isnan(table.values[:, : len(self.columns.targets)]).all(1)
        counts = np.concatenate([[0], known.cumsum()])
        starts = np.arange(max(first, self.history), end - self.horizon + 1)
        return starts[counts[starts + self.horizon] > counts[starts]]

    def _batches(self, split: str, batch_size: int, **options: Any) -> WindowBatches:
        table, count = self.splits.table, len(self.columns.targets)
        return WindowBatches(
            torch.from_numpy(self.preprocess.features(table)),
            torch.from_numpy(self.preprocess.scaled(table)[:, :count].astype(np.float32)),
            self.windows(split),
            history=self.history,
            horizon=self.horizon,
            batch_size=batch_size,
            **self.placed(),
            **options,
        )


class PublishedSeries(Series):
    """A series that is one published file. A subclass says which, and where it is cut; what is forecast from what is chosen.

    Found in data_dir/weather; otherwise downloaded. Arguments as `Series`, and:

    Args:
        data_dir: where the data sets lie.
        targets: columns that are forecast.
        inputs: columns of further numbers.
        texts: columns of texts, each with "compass" or its words.
        masks: columns for which the network is told whether the value is known.
        calendar: what it is told of the date: of "hour", "weekday" and "yearday".
    """

    file: ClassVar[str]
    url: ClassVar[str]
    sha256: ClassVar[str]
    date_columns: ClassVar[tuple[str, ...]]
    published: ClassVar[int]  # rows of the file

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
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
        batch_size: int = 64,
        eval_batch_size: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__(
            Columns(self.date_columns, targets, inputs, texts, masks, calendar),
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
        self.path = Path(data_dir) / "weather" / self.file

    @abstractmethod
    def ends(self, table: Table) -> tuple[int, int, int]:
        """The rows at which the training, validation and test parts end."""

    def read(self) -> SeriesSplits:
        if not self.path.is_file():
            fetch([self.url], self.path, sha256=self.sha256)
        table = read_series(self.path, self.columns)
        if (found := len(table) - table.added) != self.published:
            raise self.unlike(f"expected {self.published:,} rows, found {found:,}.")
        return SeriesSplits(table, self.ends(table))
