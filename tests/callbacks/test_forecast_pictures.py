"""What a run of a forecast leaves: windows from everywhere in the evaluation, errors over all of it, a table to go on from."""

from types import SimpleNamespace

import numpy as np
import torch

from dlzoo.callbacks.pictures import forecast as pictures
from dlzoo.callbacks.pictures.forecast import SHOWN, ForecastPictures

ROWS, HORIZON = 120, 4
SPLITS = {"val": torch.arange(40, 77), "test": torch.arange(80, 117)}


def _pictures(folder):
    dates = np.datetime64("2020-01-01T00", "s") + np.arange(ROWS) * np.timedelta64(3_600, "s")
    data = SimpleNamespace(
        dates=dates,
        values=np.arange(ROWS, dtype=float)[:, None],
        columns=SimpleNamespace(targets=["t"]),
        horizon=HORIZON,
        history=30,
        windows=SPLITS.__getitem__,
        write_example=lambda path: path.write_text("t\n1\n"),
    )
    return ForecastPictures(folder, "air", data, mistakes=32)


def _evaluate(shown, starts, missing=()):
    for at in starts.split(10):
        truth = (at[:, None] + torch.arange(HORIZON)).float()[..., None]
        truth[[int(start) in missing for start in at]] = torch.nan
        steps = torch.arange(1.0, HORIZON + 1)[:, None]
        shown.watch({"truth": truth, "forecast": truth.nan_to_num(7) + steps, "seasonal": truth * 0 - 1}, (None, None, at))


def test_windows_come_from_everywhere_and_errors_from_all_known_targets(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(pictures, "forecasts", lambda windows, title: drawn.update(windows=windows, title=title))
    monkeypatch.setattr(pictures, "error_by_step", lambda errors, title: drawn.update(errors=errors))
    monkeypatch.setattr(pictures.figure, "save", lambda figure, path: drawn.setdefault("files", []).append(path.name))
    shown = _pictures(tmp_path)
    for split, word in (("val", "validation"), ("test", "test")):
        shown.clear()
        _evaluate(shown, SPLITS[split], missing=(SPLITS[split][2].item(),))
        shown.gather(SimpleNamespace(reduce=lambda value, reduce_op: value * 2))
        shown.draw(word)
        starts = [int(window.truth[0]) for window in drawn["windows"]]
        assert len(starts) == SHOWN and starts[0] < SPLITS[split][5] and starts[-1] > SPLITS[split][-6]
        assert np.ptp(np.diff(starts)) <= 1 and drawn["title"] == f"air, {word}: t"
        first = drawn["windows"][0]
        assert len(first.past) == 24 and first.past[-1] == first.truth[0] - 1
        assert (first.after - first.before[-1]).astype(int).tolist() == [3_600, 7_200, 10_800, 14_400]
        assert set(first.lines) == {"forecast", "seasonal"} and first.lines["forecast"][1] == first.truth[1] + 2
        np.testing.assert_allclose(drawn["errors"]["forecast"], [1, 2, 3, 4], rtol=1e-6)
    assert drawn["files"] == ["forecast.png", "horizon.png"] * 2


def test_the_files_are_drawn(tmp_path):
    shown = _pictures(tmp_path)
    shown.draw("test")
    assert not list(tmp_path.iterdir())  # nothing was evaluated
    shown.first((None, None, None))
    _evaluate(shown, SPLITS["test"])
    shown.draw("test")
    assert {path.name for path in tmp_path.iterdir()} == {"forecast.png", "horizon.png", "example.csv"}
