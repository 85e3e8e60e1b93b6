"""How the rows of a series become what a network is shown, and how what it answers becomes values again.

All that is needed for it is plain numbers, fitted on the training part alone, which a run keeps in its summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlzoo.data.baselines import climate, harmonics
from dlzoo.data.columns import CALENDAR, CALM, COMPASS, POINTS, Columns
from dlzoo.data.series import MISSING, Table, carry
from dlzoo.errors import DataError

__all__ = ["SeriesInput"]

Numbers = Sequence[float]


@dataclass(frozen=True)
class SeriesInput:
    """Scaling, calendar and masks of a series.

    Args:
        columns: of its table.
        step: seconds from one row to the next.
        history: rows that a network is shown.
        horizon: rows that it forecasts.
        season: rows of a season.
        mean: of each number, targets first.
        std: likewise.
        yearly: harmonics of the year in `usual`.
        daily: harmonics of the day in `usual`.
        usual: factors of the harmonics, one row a target; the network is then shown, and forecasts, how targets differ from
            that, and their means are 0. () for none.
    """

    columns: Columns
    step: int
    history: int
    horizon: int
    season: int
    mean: Numbers
    std: Numbers
    yearly: int = 0
    daily: int = 0
    usual: Sequence[Numbers] = ()

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: slice,
        columns: Columns,
        *,
        history: int,
        horizon: int,
        season: int,
        yearly: int = 0,
        daily: int = 0,
        deviations: bool = False,
    ) -> "SeriesInput":
        """What the rows of the training part say.

        Raises:
            DataError: a column has no value in them.
        """
        values = table.values[rows].copy()
        for name, column in zip(columns.numbers, values.T, strict=True):
            if np.isnan(column).all():
                raise DataError(f"{name} has no value in the training part", fix="another column, or data that have it")
        usual = []
        if deviations:
            count = len(columns.targets)
            factors = climate(table.dates[rows], values[:, :count], yearly, daily)
            values[:, :count] -= harmonics(table.dates[rows], yearly, daily) @ factors
            usual = factors.T.tolist()
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        std[std < 1e-12 * np.maximum(1, np.abs(mean))] = 1.0  # a constant column
        if deviations:
            mean[: len(columns.targets)] = 0.0
        plain = {"mean": mean.tolist(), "std": std.tolist(), "usual": usual}
        return cls(columns, table.step, history, horizon, season, yearly=yearly, daily=daily, **plain)

    def offset(self, dates: np.ndarray) -> np.ndarray:
        """What stands for 0 of a scaled target at each date: its mean, or its usual value. (N,) -> (N, K)."""
        mean = np.array(self.mean[: len(self.columns.targets)])
        if not self.usual:
            return np.broadcast_to(mean, (len(dates), len(mean)))
        return mean + harmonics(dates, self.yearly, self.daily) @ np.array(self.usual).T

    @property
    def scale(self) -> np.ndarray:
        """Units of each target that 1 stands for: (K,)."""
        return np.array(self.std[: len(self.columns.targets)])

    def scaled(self, table: Table) -> np.ndarray:
        """The numbers, scaled, NaN where they are missing: (N, C)."""
        values, count = table.values.copy(), len(self.columns.targets)
        values[:, :count] -= self.offset(table.dates)
        values[:, count:] -= np.array(self.mean[count:])
        return values / np.array(self.std)

    def features(self, table: Table) -> np.ndarray:
        """What the network is shown of each row: (N, F), float32. A missing number is the last known one, or the mean."""
        scaled = self.scaled(table)
        parts = [carry(scaled, np.zeros(scaled.shape[1]))]
        parts += [_words(name, kind, table.texts[name]) for name, kind in self.columns.texts.items()]
        known = ~np.isnan(scaled)
        parts += [known[:, [self.columns.numbers.index(name)]] for name in self.columns.masks]
        seconds = (table.dates - np.datetime64("2001-01-01", "s")).astype(np.float64)  # a Monday
        for name in self.columns.calendar:
            angle = 2 * np.pi * seconds / CALENDAR[name]
            parts.append(np.stack([np.sin(angle), np.cos(angle)], 1))
        return np.concatenate(parts, 1).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        numbers = ("step", "history", "horizon", "season", "yearly", "daily")
        lists = {"mean": list(self.mean), "std": list(self.std), "usual": [list(row) for row in self.usual]}
        plain = {name: getattr(self, name) for name in numbers}
        return {"kind": "series", "columns": self.columns.as_dict(), **plain, **lists}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "SeriesInput":
        """The same, from `as_dict`."""
        rest = {name: value for name, value in plain.items() if name not in ("kind", "columns")}
        return cls(Columns(**plain["columns"]), **rest)


def _words(name: str, kind: Any, words: np.ndarray) -> np.ndarray:
    """A column of texts as numbers, 0 where it says nothing: (N, 2) or (N, words of the column).

    Raises:
        DataError: a word that is not one of them.
    """
    nothing, rows = MISSING, {}
    if kind == COMPASS:
        nothing = MISSING | set(CALM)
        angles = 2 * np.pi * np.arange(len(POINTS)) / len(POINTS)
        rows = {point.lower(): (np.sin(angle), np.cos(angle)) for point, angle in zip(POINTS, angles, strict=True)}
    else:
        rows = {str(word).lower(): tuple(one) for word, one in zip(kind, np.eye(len(kind)), strict=True)}
    size = len(next(iter(rows.values())))
    rows = dict.fromkeys(nothing, (0.0,) * size) | rows
    lowered = [str(word).lower() for word in words]
    if unknown := sorted(set(lowered) - set(rows)):
        row = lowered.index(unknown[0])
        known = "points of the compass, or cv" if kind == COMPASS else ", ".join(map(str, kind))
        raise DataError(f"{name} is {words[row]!r} in row {row + 1}", fix=f"one of: {known}; or NA")
    return np.array([rows[word] for word in lowered], dtype=np.float64)
