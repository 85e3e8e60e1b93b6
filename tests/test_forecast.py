"""`dlzoo forecast`: the answer of the network in units, dates that go on, and mistakes told without a traceback."""

import csv

import numpy as np
import pytest
import torch

import dlzoo
from dlzoo import cli, ending
from dlzoo.data.series import read_series
from dlzoo.data.series_input import SeriesInput
from dlzoo.errors import ConfigError
from dlzoo.forecast import example_windows, forecast

ROWS = 300


def _write(path, names=("when", "load", "wind"), rows=ROWS, start="2020-01-01T00"):
    random = np.random.default_rng(0)
    hours = np.datetime64(start, "s") + np.arange(rows) * np.timedelta64(3_600, "s")
    load = 50 + 20 * np.sin(2 * np.pi * np.arange(rows) / 24) + random.normal(0, 2, rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([str(hour).replace("T", " "), f"{value:.3f}", "NE"] for hour, value in zip(hours, load, strict=True))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast")
    words = [
        *("data=series_file", "model=tcn", "task=forecasting", "trainer=cpu", f"data.path={_write(folder / 'a.csv')}"),
        *(
            "data.dates=[when]",
            "data.targets=[load]",
            "+data.texts.wind=compass",
            "data.calendar=[hour]",
            "data.masks=[load]",
        ),
        *("data.history=30", "data.horizon=5", "data.season=24", "data.daily=1", "data.deviations=true", "model.width=8"),
        *("model.levels=3", "trainer.max_epochs=1", "data.batch_size=16", f"run_dir={folder}/run", "optimizer.lr=0.01"),
    ]
    return dlzoo.train(dlzoo.compose(*words), words)


def test_the_answer_is_the_networks_in_units_and_the_dates_go_on(run, tmp_path):
    source = _write(tmp_path / "new.csv", rows=40, start="2021-03-01T00")
    found = forecast(run.dir, source)
    assert [date[0] for date in found.dates] == [f"2021-03-02 {hour}:00:00" for hour in range(16, 21)]
    assert found.table == tmp_path / "new-forecast.csv" and found.picture.is_file() and found.targets == ["load"]
    rows = list(csv.reader(found.table.read_text().splitlines()))
    assert rows[0] == ["when", "load"] and [row[0] for row in rows[1:]] == [date[0] for date in found.dates]
    np.testing.assert_allclose([float(row[1]) for row in rows[1:]], np.array(found.values)[:, 0], rtol=1e-6)

    how = SeriesInput.from_dict(run.summary["preprocess"])
    table = read_series(source, how.columns)
    with torch.inference_mode():
        scaled = dlzoo.load(run.dir)(torch.from_numpy(how.features(table)[None, -30:]))[0].numpy()
    after = table.dates[-1] + np.arange(1, 6) * np.timedelta64(3_600, "s")
    np.testing.assert_allclose(found.values, scaled * how.scale + how.offset(after), rtol=1e-5)


def test_only_what_the_network_is_shown_decides(run, tmp_path):
    whole = forecast(run.dir, _write(tmp_path / "whole.csv", rows=60))
    text = (tmp_path / "whole.csv").read_text().splitlines()
    (tmp_path / "end.csv").write_text("\n".join([text[0], *text[-30:]]))
    assert forecast(run.dir, tmp_path / "end.csv").values == whole.values


def test_the_example_of_the_run_is_its_own_command(run, tmp_path, capsys):
    assert cli.main(["forecast", str(run.dir), str(run.dir / "example.csv"), "--out", str(tmp_path / "sub" / "o.csv")]) == 0
    out = capsys.readouterr().out
    assert out.count("load ") == 5 and str(tmp_path / "sub" / "o.csv") in out and (tmp_path / "sub" / "o.png").is_file()
    ending.show(run)
    out = capsys.readouterr().out
    assert f"forecast {run.dir} {run.dir / 'example.csv'}" in out and "test/mae" in out
    assert "better than" in out.lower() and "persistence" in out


def test_how_it_stands_beside_the_baselines_is_said():
    said = ending._beside({"test/mae": 2.0, "test/mae_persistence": 3.0, "test/mae_ar": 1.5, "val/mae": 9.0})
    assert said == ["test/mae better than persistence 3.0000; NOT better than ar 1.5000"]
    assert ending._beside({"test/acc": 1.0}) == [] and ending._beside({"test/mae": 1.0}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("load", "laod"), ("no column 'load'", "'laod'")),
        (lambda text: "\n".join(text.splitlines()[:20]), ("has 19 rows", "shown 30")),
        (lambda text: text.replace(",NE", ",UP", 1), ("wind is 'UP' in row 1", "cv")),
        (lambda text: text.replace(text.splitlines()[3].split(",")[1], "many"), ("line 4: load is 'many'",)),
        (lambda text: text.replace(" 05:00:00", " 05:20:00", 1), ("line 7", "3,600 s")),
    ],
    ids=["column", "short", "word", "number", "irregular"],
)
def test_a_table_that_is_wrong_is_told(run, tmp_path, capsys, change, words):
    path = _write(tmp_path / "b.csv", rows=40)
    path.write_text(change(path.read_text()))
    assert cli.main(["forecast", str(run.dir), str(path)]) == 3
    error = capsys.readouterr().err
    assert "Traceback" not in error and all(word in error for word in words), error
    assert [file.name for file in tmp_path.iterdir()] == ["b.csv"]


def test_an_export_is_compared_on_windows_of_the_test_part_or_on_noise(run):
    x, kind = example_windows(run, [], count=9)
    how = SeriesInput.from_dict(run.summary["preprocess"])
    assert x.shape == (9, 30, how.columns.width) and kind == "9 windows of the test part"
    path = run.config["data"]["path"]
    shown = torch.from_numpy(how.features(read_series(path, how.columns)))
    assert torch.equal(x[-1], shown[-35:-5])  # the last window ends five rows before the end, its horizon
    x, kind = example_windows(run, ["data.path=nowhere.csv"])
    assert x.shape == (256, 30, how.columns.width) and "the data is not here" in kind


def test_a_forecast_is_not_written_over_its_source(run, tmp_path):
    path = _write(tmp_path / "b.csv", rows=40)
    with pytest.raises(ConfigError, match="written over"):
        forecast(run.dir, path, out=path)


def test_a_run_of_another_kind_is_refused(run, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    (other / "config.yaml").write_text((run.dir / "config.yaml").read_text())
    (other / "summary.json").write_text('{"answers": "labels", "name": "x"}')
    with pytest.raises(ConfigError, match="does not forecast"):
        forecast(other, _write(tmp_path / "b.csv", rows=40))
