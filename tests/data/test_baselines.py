"""The baselines against loops in NumPy, and against the figures that are known of Melbourne's temperatures."""

import csv

import numpy as np
import pytest
import torch

from dlzoo.data.baselines import Baselines, autoregression, climate, harmonics, seasonal_error

COUNT, HORIZON, SEASON = 60, 5, 3


def _values(targets=2):
    return np.random.default_rng(0).normal(size=(COUNT, targets)).cumsum(0)


def _dates(count=COUNT, start="1990-01-01"):
    return np.datetime64(start, "s") + np.arange(count) * np.timedelta64(86_400, "s")


def test_persistence_and_season_are_loops():
    values = _values()
    starts = [10, 20, 55]
    found = Baselines(torch.from_numpy(values), HORIZON, SEASON)(torch.tensor(starts))
    assert set(found) == {"persistence", "seasonal"}
    for row, at in enumerate(starts):
        for step in range(HORIZON):
            np.testing.assert_array_equal(found["persistence"][row, step], values[at - 1])
            before = at + step
            while before >= at:  # the newest that is known, of the same place in its season
                before -= SEASON
            np.testing.assert_array_equal(found["seasonal"][row, step], values[before])


def test_an_autoregression_goes_on_with_what_it_forecast():
    values, usual, order = _values(), _values() * 0 + np.linspace(0, 3, COUNT)[:, None], 4
    factors = autoregression(values - usual, order)
    parts = [torch.from_numpy(part) for part in (usual, factors)]
    rivals = Baselines(torch.from_numpy(values), HORIZON, SEASON, *parts)
    assert rivals.names == ("persistence", "seasonal", "climatology", "ar")
    found = rivals(torch.tensor([9, 31]))
    for row, at in enumerate((9, 31)):
        for target in range(2):
            past = list((values - usual)[:at, target])
            for step in range(HORIZON):
                past.append(sum(factors[lag, target] * past[-1 - lag] for lag in range(order)) + factors[-1, target])
                assert found["ar"][row, step, target].item() == pytest.approx(past[-1] + usual[at + step, target])
                assert found["climatology"][row, step, target] == usual[at + step, target]


def test_an_autoregression_is_found_again_and_missing_rows_are_left_out():
    random, true = np.random.default_rng(1), np.array([0.6, -0.3])
    series = [0.0, 0.0]
    for _ in range(20_000):
        series.append(0.5 + true[0] * series[-1] + true[1] * series[-2] + random.normal() * 0.1)
    column = np.array(series)[:, None]
    np.testing.assert_allclose(autoregression(column, 2)[:, 0], [*true, 0.5], atol=0.03)
    column[100::50] = np.nan
    np.testing.assert_allclose(autoregression(column, 2)[:, 0], [*true, 0.5], atol=0.03)


def test_a_climatology_is_a_fit_of_harmonics():
    dates = _dates(1_000)
    turn = 2 * np.pi * (dates - np.datetime64("2000-01-01", "s")).astype(float) / (365.2425 * 86_400)
    truth = np.stack([4 + 3 * np.sin(turn) - 2 * np.cos(2 * turn)], 1)
    truth_with_gaps = truth.copy()
    truth_with_gaps[::7] = np.nan
    factors = climate(dates, truth_with_gaps, 2, 0)
    np.testing.assert_allclose(factors[:, 0], [4, 3, 0, 0, -2], atol=1e-9)
    np.testing.assert_allclose(harmonics(dates, 2, 0) @ factors, truth, atol=1e-9)
    assert harmonics(dates, 3, 2).shape == (1_000, 11)


def test_the_seasonal_error_is_a_mean_over_the_known():
    values = np.array([[1.0], [5], [2], [np.nan], [7]])
    assert seasonal_error(values, 2).tolist() == [(1 + 5) / 2]


def _minima(data_dir):
    with (data_dir / "weather" / "daily-min-temperatures.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    return np.array([row[0] for row in rows], "datetime64[s]"), np.array([[float(row[1])] for row in rows])


def test_the_figures_that_melbourne_lstm_has_to_beat(data_dir):
    """1.710 for AR(14) on the deviations from three harmonics of the year, 1.953 and 2.97 without them: the last 730 days,
    fitted to all rows before, as if no day were missing. (On the calendar, as the run has it, it is 1.711.)"""
    dates, values = _minima(data_dir)
    end = len(values) - 730
    usual = harmonics(dates, 3, 0) @ climate(dates[:end], values[:end], 3, 0)
    factors = autoregression((values - usual)[:end], 14)
    parts = [torch.from_numpy(part) for part in (values, usual, factors)]
    rivals = Baselines(parts[0], 1, 365, *parts[1:])
    starts = torch.arange(end, len(values))
    errors = {name: (guess[:, 0] - parts[0][end:]).abs().mean().item() for name, guess in rivals(starts).items()}
    assert errors["ar"] == pytest.approx(1.710, abs=1e-3)
    assert errors["persistence"] == pytest.approx(1.953, abs=5e-4)
    assert errors["seasonal"] == pytest.approx(2.97, abs=5e-3)
    assert errors["climatology"] == pytest.approx(2.00, abs=1e-2)
