"""From rows to what a network is shown, and back to units: against formulas, and from the training part alone."""

import json

import numpy as np
import pytest

from dlzoo.data.columns import COMPASS, Columns
from dlzoo.data.series import Table
from dlzoo.data.series_input import SeriesInput
from dlzoo.errors import DataError

HOURS = 24 * 40
COLUMNS = Columns(["d"], ["t"], ["u"], {"w": COMPASS, "s": ["sun", "rain"]}, ["t"], ["hour", "weekday", "yearday"])


def _table(seed=0):
    random = np.random.default_rng(seed)
    values = np.stack([random.normal(5, 3, HOURS), random.normal(-100, 20, HOURS)], 1)
    values[3:5, 0] = np.nan
    values[0, 1] = np.nan
    dates = np.datetime64("2001-01-01T00", "s") + np.arange(HOURS) * np.timedelta64(3_600, "s")
    texts = {"w": np.array(["N", "e", "SW", "cv"] * (HOURS // 4), object), "s": np.array(["sun", "NA"] * (HOURS // 2), object)}
    return Table(dates, values, texts, 3_600)


def _fit(table, rows=slice(0, 600), **options):
    return SeriesInput.fit(table, rows, COLUMNS, history=24, horizon=6, season=24, **options)


def test_numbers_are_scaled_by_the_training_part_alone():
    table = _table()
    how = _fit(table)
    part = table.values[:600]
    np.testing.assert_allclose(how.mean, np.nanmean(part, 0))
    np.testing.assert_allclose(how.std, np.nanstd(part, 0))
    table.values[600:] += 1e6
    assert _fit(table).as_dict() == how.as_dict()
    np.testing.assert_allclose(how.scaled(table), (table.values - how.mean) / how.std)
    np.testing.assert_allclose(how.scaled(table)[:, :1] * how.scale + how.offset(table.dates), table.values[:, :1])


def test_features_are_in_the_order_that_is_told():
    table = _table()
    how = _fit(table)
    shown = how.features(table)
    assert shown.shape == (HOURS, COLUMNS.width) and shown.dtype == np.float32 and np.isfinite(shown).all()
    scaled = how.scaled(table)
    np.testing.assert_allclose(shown[3:5, 0], scaled[2, 0], rtol=1e-6)  # carried forward
    assert shown[0, 1] == 0  # nothing before it: the mean
    half = 0.5**0.5
    np.testing.assert_allclose(shown[:4, 2:4], [[0, 1], [1, 0], [-half, -half], [0, 0]], atol=1e-6)
    np.testing.assert_array_equal(shown[:2, 4:6], [[1, 0], [0, 0]])
    assert shown[:6, 6].tolist() == [1, 1, 1, 0, 0, 1]  # whether the target is known
    hours = np.arange(HOURS)
    np.testing.assert_allclose(shown[:, 7], np.sin(2 * np.pi * hours / 24), atol=1e-5)
    np.testing.assert_allclose(shown[:, 10], np.cos(2 * np.pi * hours / (7 * 24)), atol=1e-5)  # the first day is a Monday
    np.testing.assert_allclose(shown[:, 11], np.sin(2 * np.pi * hours / (365.2425 * 24)), atol=1e-5)


def test_deviations_are_from_the_usual_value_of_the_date():
    table = _table()
    hours = np.arange(HOURS)
    wave = 3 * np.sin(2 * np.pi * hours / 24) + 7
    table.values[:, 0] = wave + np.random.default_rng(1).normal(0, 0.5, HOURS)
    how = _fit(table, daily=1, deviations=True)
    np.testing.assert_allclose(how.offset(table.dates)[:, 0], wave, atol=0.1)
    assert how.mean[0] == 0 and how.std[0] == pytest.approx(0.5, rel=0.1)
    np.testing.assert_allclose(how.scaled(table)[:, :1] * how.scale + how.offset(table.dates), table.values[:, :1])


def test_it_is_kept_as_plain_values():
    how = _fit(_table(), daily=2, deviations=True)
    again = SeriesInput.from_dict(json.loads(json.dumps(how.as_dict())))
    assert again.as_dict() == how.as_dict() and how.as_dict()["kind"] == "series"
    np.testing.assert_array_equal(again.features(_table()), how.features(_table()))


def test_a_constant_column_is_no_division_by_zero():
    table = _table()
    table.values[:, 1] = 4
    assert np.isfinite(_fit(table).features(table)).all()


def test_what_can_not_be_read_is_told():
    table = _table()
    table.texts["w"][7] = "up"
    with pytest.raises(DataError, match="w is 'up' in row 8"):
        _fit(table).features(table)
    table.values[:600, 1] = np.nan
    with pytest.raises(DataError, match="u has no value in the training part"):
        _fit(table)
