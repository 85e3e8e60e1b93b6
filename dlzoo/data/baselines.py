"""Forecasts that need no network: the last value, the last season, the usual value of a date, an autoregression.

What a network is worth is how much better it is than these, on the same windows. All of them are fitted by least squares to
values that lie before those they are tried on.

Source: Hyndman, Athanasopoulos 2021, Forecasting: Principles and Practice, https://otexts.com/fpp3, sections 5.2 (naive and
    seasonal naive), 7.4 (harmonics of a season), 9.3 (autoregression); the scaled error: Hyndman, Koehler 2006,
    https://doi.org/10.1016/j.ijforecast.2006.03.001.

Shapes: N rows of the series, K targets, B windows, H steps to come, C harmonics, p order.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["Baselines", "autoregression", "climate", "harmonics", "seasonal_error"]

YEAR, DAY = 365.2425 * 86_400, 86_400.0  # seconds


def harmonics(dates: np.ndarray, yearly: int, daily: int) -> np.ndarray:
    """1, and sines and cosines of one turn a year, two turns a year ..., and likewise of the day: (N,) -> (N, 1 + 2 (y + d)).

    Args:
        dates: datetime64[s].
        yearly: how many turns a year the fastest has; 0 for none.
        daily: likewise, of the day.
    """
    seconds = (dates - np.datetime64("2000-01-01", "s")).astype(np.float64)
    waves = [np.ones(len(dates))]
    for length, count in ((YEAR, yearly), (DAY, daily)):
        for turn in range(1, count + 1):
            angle = 2 * np.pi * turn * seconds / length
            waves += [np.sin(angle), np.cos(angle)]
    return np.stack(waves, 1)


def climate(dates: np.ndarray, values: np.ndarray, yearly: int, daily: int) -> np.ndarray:
    """Factors of the harmonics that fit the known values best: (N,), (N, K) -> (C, K)."""
    waves = harmonics(dates, yearly, daily)
    known = ~np.isnan(values)
    columns = [
        np.linalg.lstsq(waves[seen], column[seen], rcond=None)[0] for column, seen in zip(values.T, known.T, strict=True)
    ]
    return np.stack(columns, 1)


def autoregression(deviations: np.ndarray, order: int) -> np.ndarray:
    """Factors of the last `order` values, newest first, and a constant, for the next one: (N, K) -> (p + 1, K).

    Rows are left out where one of their values is missing.
    """
    factors = []
    for column in deviations.T:
        rows = np.lib.stride_tricks.sliding_window_view(column, order + 1)[:, ::-1]  # the value, then those before it
        rows = rows[~np.isnan(rows).any(1)]
        past = np.concatenate([rows[:, 1:], np.ones((len(rows), 1))], 1)
        factors.append(np.linalg.lstsq(past, rows[:, 0], rcond=None)[0])
    return np.stack(factors, 1)


def seasonal_error(values: np.ndarray, season: int) -> np.ndarray:
    """The mean absolute difference of values one season apart, by which MASE divides: (N, K) -> (K,)."""
    return np.nanmean(np.abs(values[season:] - values[:-season]), axis=0)


class Baselines:
    """What the baselines forecast for windows of a series.

    Args:
        values: with nothing missing: what was last known stands where nothing is.
        horizon: H.
        season: rows of a season.
        usual: the climatology of each row; None for none.
        factors: of the autoregression of what differs from `usual` (or from 0); None for none.

    Shape:
        values (N, K), usual (N, K), factors (p + 1, K).
    """

    def __init__(
        self, values: Tensor, horizon: int, season: int, usual: Tensor | None = None, factors: Tensor | None = None
    ) -> None:
        self.values, self.horizon, self.season, self.usual, self.factors = values, horizon, season, usual, factors

    @property
    def names(self) -> tuple[str, ...]:
        """Of the baselines there are."""
        extra = {"climatology": self.usual, "ar": self.factors}
        return ("persistence", "seasonal", *(name for name, part in extra.items() if part is not None))

    def to(self, device: torch.device) -> "Baselines":
        """The same on another device."""
        parts = (None if part is None else part.to(device) for part in (self.usual, self.factors))
        return Baselines(self.values.to(device), self.horizon, self.season, *parts)

    def __call__(self, at: Tensor) -> dict[str, Tensor]:
        """Name -> forecast (B, H, K), from what lies before row `at` (B,), the first that is forecast."""
        steps = torch.arange(self.horizon, device=at.device)
        # the newest season that lies before `at` whole: for steps beyond one season it comes again
        ago = self.season * (1 + steps.div(self.season, rounding_mode="floor"))
        ahead = at[:, None] + steps  # (B, H)
        found = {
            "persistence": self.values[at - 1][:, None].expand(-1, self.horizon, -1),
            "seasonal": self.values[(ahead - ago).clamp(min=0)],
        }
        if self.usual is not None:
            found["climatology"] = self.usual[ahead]
        if self.factors is not None:
            found["ar"] = self._autoregressed(at, ahead)
        return found

    def _autoregressed(self, at: Tensor, ahead: Tensor) -> Tensor:
        order = len(self.factors) - 1
        before = (at[:, None] - 1 - torch.arange(order, device=at.device)).clamp(min=0)  # newest first
        usual = torch.zeros_like(self.values) if self.usual is None else self.usual
        past = self.values[before] - usual[before]  # (B, p, K)
        steps = []
        for _ in range(self.horizon):
            steps.append((past * self.factors[:-1]).sum(1) + self.factors[-1])
            past = torch.cat([steps[-1][:, None], past[:, :-1]], 1)
        return torch.stack(steps, 1) + usual[ahead]
