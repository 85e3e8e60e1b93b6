"""Curves of several runs: a line for each where it has values, and nothing that was not there."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from dlzoo.plots.compared import compared
from dlzoo.plots.figure import save
from dlzoo.plots.lines import draw_labels

RUNS = {
    "fp32": {"val/loss": ([10, 20], [2.0, 1.0]), "train/loss": ([5, 10, 15, 20], [3.0, 2.5, 2.0, 1.5])},
    "bf16": {"val/loss": ([10, 20], [2.1, 1.1])},
}


def words(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def test_a_panel_for_each_metric_and_a_line_for_each_run(tmp_path):
    figure = compared(RUNS, ["train/loss", "val/loss", "val/acc"], "title")
    assert [axes.get_ylabel() for axes in figure.axes] == ["train/loss", "val/loss"]  # no run has the last
    assert [len(axes.lines) for axes in figure.axes] == [1, 2]
    for line, history in zip(figure.axes[1].lines, RUNS.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata().T, history["val/loss"])
    assert {"title", "fp32: 1.5", "fp32: 1", "bf16: 1.1"} <= words(figure)
    save(figure, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5_000


def test_many_runs_are_told_apart():
    figure = compared({str(index): {"loss": ([1, 2], [index, index])} for index in range(12)}, ["loss"], "")
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 12


def test_nothing_to_draw_is_said():
    assert "no data yet" in words(compared(RUNS, ["val/acc"], ""))
    said = words(compared(RUNS | {"bf16": {"val/loss": ([1], [float("nan")])}}, ["val/loss"], ""))
    assert {"fp32: 1", "bf16: no finite value"} <= said
    with pytest.raises(ValueError, match=r"val/loss must have as many steps as values, got 2 and 1"):
        compared({"one": {"val/loss": ([1, 2], [1.0])}}, ["val/loss"], "")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_labels_do_not_cover_each_other(scale):
    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    axes.set_yscale(scale)
    ends = [1.0, 1.001, 1.002, 50.0, 100.0, 99.9]
    for end in ends:
        axes.plot([0, 1], [1.0, end])
    draw_labels(axes, [(end, str(end), "black") for end in ends])
    places = {text.get_text(): text.get_position()[1] for text in axes.texts}
    line = 14 / 72 / (3 * axes.get_position().height)
    heights = sorted(places.values())
    assert np.diff(heights).min() >= line - 1e-9
    assert sorted(places, key=places.get) == [str(end) for end in sorted(ends)] and places["50.0"] == pytest.approx(
        axes.transAxes.inverted().transform(axes.transData.transform((0, 50)))[1]
    )
