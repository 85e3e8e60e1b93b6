"""Series: where they are cut, that nothing of a later part reaches what is fitted, and what is told when it does not fit."""

import csv

import numpy as np
import pytest
import torch

from dlzoo.data.columns import Columns
from dlzoo.data.series import read_series
from dlzoo.datamodules.beijing import Beijing
from dlzoo.datamodules.etth1 import ETTh1
from dlzoo.datamodules.melbourne import Melbourne
from dlzoo.datamodules.series_file import SeriesFile
from dlzoo.errors import ConfigError, DataError

ROWS = 400
PLAIN = {
    "dates": ["date"],
    "targets": ["t"],
    "inputs": ["u"],
    "texts": {},
    "masks": ["t"],
    "calendar": ["hour"],
    "features": 5,
    "outputs": 1,
    "history": 12,
    "horizon": 4,
    "season": 24,
    "batch_size": 16,
    "eval_batch_size": 16,
}


def _write(path, change=lambda values: None):
    random = np.random.default_rng(0)
    hours = np.arange(ROWS)
    values = np.stack([10 + 3 * np.sin(2 * np.pi * hours / 24) + random.normal(0, 0.3, ROWS), random.normal(0, 9, ROWS)], 1)
    values[50:53, 0] = np.nan
    values[330:350, 0] = np.nan
    change(values)
    dates = np.datetime64("2020-01-01T00", "s") + hours * np.timedelta64(3_600, "s")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", "t", "u"])
        writer.writerows([date, "NA" if np.isnan(t) else t, u] for date, (t, u) in zip(dates, values, strict=True))
    return path


@pytest.fixture
def path(tmp_path):
    return _write(tmp_path / "a.csv")


def test_each_part_forecasts_its_own_rows_and_may_look_back(path):
    data = SeriesFile(path, **PLAIN, val_fraction=0.2, test_fraction=0.25)
    assert data.splits.ends == (220, 300, 400)
    assert data.windows("train").tolist() == list(range(12, 217)) and data.windows("val").tolist() == list(range(220, 297))
    # of the windows 330 to 346 nothing is known that was to come
    assert data.windows("test").tolist() == [*range(300, 330), *range(347, 397)]
    x, y, at = next(iter(data.val_dataloader()))
    assert at[0] == 220 and x.shape == (16, 12, 5) and y.shape == (16, 4, 1) and "400 rows" in data.splits.edition
    features = torch.from_numpy(data.preprocess.features(data.splits.table))
    assert torch.equal(x[0], features[208:220])
    np.testing.assert_allclose(data.in_units(y, at)[0, :, 0], data.values[220:224, 0], rtol=1e-5)


def test_missing_targets_are_not_made_up(path):
    data = SeriesFile(path, **PLAIN)
    missing = torch.cat([y[at == 48] for _, y, at in data.train_dataloader()])
    assert missing.isnan()[0, :, 0].tolist() == [False, False, True, True]


@pytest.mark.parametrize("options", [{}, {"daily": 2, "deviations": True, "ar": 3}], ids=["plain", "deviations"])
def test_what_is_fitted_sees_nothing_of_a_later_part(path, tmp_path, options):
    plain = SeriesFile(path, **PLAIN, **options, val_fraction=0.2, test_fraction=0.25)

    def spoil(first):
        def change(values):
            values[first:] = values[first:] * 50 + 1_000

        return SeriesFile(_write(tmp_path / "b.csv", change), **PLAIN, **options, val_fraction=0.2, test_fraction=0.25)

    later = spoil(220)
    assert later.preprocess.as_dict() == plain.preprocess.as_dict()
    np.testing.assert_array_equal(later.season_error, plain.season_error)
    at = torch.tensor([220])
    for name, guess in plain.baselines(at, "val").items():
        torch.testing.assert_close(later.baselines(at, "val")[name], guess, msg=name)
    last, at = spoil(300), torch.tensor([300])
    for name, guess in plain.baselines(at, "test").items():
        torch.testing.assert_close(last.baselines(at, "test")[name], guess, msg=name)
    assert set(plain.rivals) == set(plain.baselines(at, "test"))


def test_a_climatology_may_be_a_baseline_alone(path):
    data = SeriesFile(path, **PLAIN, daily=1)
    assert data.rivals == ("persistence", "seasonal", "climatology") and not data.preprocess.usual
    guess = data.baselines(torch.tensor([380]), "test")["climatology"][0, :, 0]
    np.testing.assert_allclose(guess, 10 + 3 * np.sin(2 * np.pi * np.arange(380, 384) / 24), atol=0.2)


def test_the_example_can_be_read_back(path, tmp_path):
    data = SeriesFile(path, **PLAIN)
    data.write_example(tmp_path / "example.csv")
    table = read_series(tmp_path / "example.csv", data.columns)
    np.testing.assert_allclose(table.values, data.splits.table.values[-12:], rtol=1e-9)
    np.testing.assert_array_equal(table.dates, data.dates[-12:])


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ({"history": 0}, ValueError, "history"),
        ({"horizon": 0}, ValueError, "horizon"),
        ({"season": 0}, ValueError, "season"),
        ({"ar": -1}, ValueError, "ar must be 0"),
        ({"deviations": True}, ValueError, "yearly or daily"),
        ({"val_fraction": 0}, ValueError, "val_fraction"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, ValueError, "together below 1"),
        ({"features": 4}, ConfigError, "the columns give 5 features"),
        ({"outputs": 2}, ConfigError, "the columns give 1 outputs"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(words, error, match):
    with pytest.raises(error, match=match):
        SeriesFile("nowhere.csv", **{**PLAIN, **words})


def test_too_few_rows_are_told(path):
    with pytest.raises(DataError, match=r"validation part .* no window"):
        SeriesFile(path, **{**PLAIN, "horizon": 61}).prepare_data()
    with pytest.raises(DataError, match="280 rows, and a season 300"):
        SeriesFile(path, **{**PLAIN, "season": 300}).prepare_data()
    with pytest.raises(DataError, match="no pictures"):
        SeriesFile(path, **PLAIN).test_images(3)


def test_a_file_that_has_grown_is_shown_as_the_network_was_trained(path, tmp_path):
    plain = SeriesFile(path, **PLAIN, run_dir=tmp_path).preprocess
    assert (tmp_path / "series.json").is_file()
    _write(path, lambda values: values.__iadd__(5))
    again = SeriesFile(path, **PLAIN, run_dir=tmp_path)
    assert again.preprocess.as_dict() == plain.as_dict() != SeriesFile(path, **PLAIN).preprocess.as_dict()
    assert SeriesFile(path, **PLAIN, run_dir=tmp_path / "new").preprocess.mean[0] == pytest.approx(plain.mean[0] + 5)
    with pytest.raises(ConfigError, match="another horizon of its series"):
        _ = SeriesFile(path, **{**PLAIN, "horizon": 5}, run_dir=tmp_path).preprocess


# --- the published ones


def _published(kind, data_dir, **words):
    columns = {"inputs": [], "texts": {}, "masks": [], "calendar": [], **words}
    plain = {"history": 14, "horizon": 1, "season": 24}
    first = kind.date_columns
    features = Columns(first, **columns).width
    return kind(data_dir, **{**plain, **columns}, features=features, outputs=1)


def test_melbourne(data_dir):
    data = _published(Melbourne, data_dir, targets=["Temp"])
    table = data.splits.table
    assert len(table) == 3_652 and table.added == 2 and np.isnan(table.values).sum() == 2
    first, second, third = data.splits.ends
    assert str(table.dates[first])[:10] == "1988-01-01" and str(table.dates[second])[:10] == "1989-01-01" and third == 3_652
    assert len(data.windows("test")) == 730
    at = data.windows("test")
    errors = {
        name: (guess[:, 0, 0] - torch.tensor(data.values[at, 0])).abs().mean()
        for name, guess in data.baselines(at, "test").items()
    }
    assert errors["persistence"].item() == pytest.approx(1.953, abs=5e-4)


def test_etth1_is_cut_as_in_the_paper(data_dir):
    data = _published(ETTh1, data_dir, targets=["OT"])
    assert data.splits.ends == (8_640, 11_520, 14_400) and len(data.splits.table) == 17_420
    assert len(data.windows("val")) == len(data.windows("test")) == 2_880 and not np.isnan(data.values).any()


def test_beijing_is_cut_by_years(data_dir):
    data = _published(Beijing, data_dir, targets=["pm2.5"], texts={"cbwd": "compass"}, masks=["pm2.5"])
    dates, ends = data.dates, data.splits.ends
    assert [str(dates[end])[:13] for end in ends[:2]] == ["2013-01-01T00", "2014-01-01T00"] and ends[2] == 43_824
    assert np.isnan(data.values).sum() == 2_067


def test_another_file_is_told(tmp_path, monkeypatch):
    (tmp_path / "weather").mkdir()
    (tmp_path / "weather" / "daily-min-temperatures.csv").write_text("Date,Temp\n1981-01-01,3\n1981-01-02,4\n")
    with pytest.raises(DataError, match="expected 3,650 rows, found 2"):
        _published(Melbourne, tmp_path, targets=["Temp"]).prepare_data()
    with pytest.raises(DataError, match=r"put the file at .*daily-min"):
        _published(Melbourne, tmp_path / "nowhere", targets=["Temp"]).prepare_data()
