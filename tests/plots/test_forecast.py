"""Pictures of forecasts: a panel for each window, its lines, and the error of each step."""

import numpy as np

from dlzoo.plots.forecast import Window, error_by_step, forecasts


def _window(horizon=6, came=True):
    dates = np.datetime64("2020-01-01T00", "s") + np.arange(20 + horizon) * np.timedelta64(3_600, "s")
    values = np.sin(np.arange(20 + horizon) / 3)
    values[4] = np.nan
    lines = {"forecast": values[20:] + 1, "seasonal": values[20:] - 1}
    return Window(dates[:20], values[:20], dates[20:], values[20:] if came else np.zeros(0), lines)


def test_every_window_has_a_panel_with_its_lines():
    figure = forecasts([_window(), _window(), _window(1)], "air")
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 3 and figure.get_suptitle() == "air"
    whole, *guesses, now = panels[0].lines
    np.testing.assert_allclose(whole.get_ydata(), np.concatenate([_window().past, _window().truth]))
    assert [line.get_label() for line in guesses] == ["forecast", "seasonal"]
    np.testing.assert_allclose(guesses[0].get_ydata(), _window().truth + 1)
    assert now.get_xdata()[0] == _window().before[-1]  # where the past ends
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["what came", "forecast", "seasonal"]


def test_what_has_yet_to_come_is_not_drawn():
    panel = forecasts([_window(came=False)], "air").axes[0]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), _window().past)
    assert panel.lines[0].get_label() == "past"


def test_nothing_to_show_is_said():
    assert forecasts([], "air").texts[-1].get_text() == error_by_step({}, "air").texts[-1].get_text() == "no data yet"


def test_the_error_of_each_step_and_its_mean():
    axes = error_by_step({"persistence": np.array([1.0, 3, 5]), "forecast": np.array([1.0, 1, 4])}, "air").axes[0]
    assert [line.get_label() for line in axes.lines] == ["forecast 2", "persistence 3"]
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3] and axes.get_ylim()[0] == 0


def test_a_single_step_is_drawn_as_bars():
    axes = error_by_step({"persistence": np.array([3.0]), "forecast": np.array([2.0])}, "air").axes[0]
    assert sorted(bar.get_width() for bar in axes.patches) == [2, 3]
    assert {label.get_text() for label in axes.get_yticklabels()} == {"forecast 2", "persistence 3"}
