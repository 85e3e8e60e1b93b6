"""The picture of a sweep: every job where its value and its parameters are, and the best one told."""

import numpy as np
import pytest

from dlzoo.plots.figure import save
from dlzoo.plots.sweep import sweep


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def points(axes, marker, face=None):
    """The places of the signs of one kind."""
    found = [
        line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) and line.get_markersize() < 10
    ]
    if face is not None:
        found = [line for line in found if (line.get_markerfacecolor() == "white") == (face == "hollow")]
    return [(float(x), float(y)) for line in found for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


VALUES = [0.5, 0.3, 0.9, None, 0.4]
STATUSES = ["finished", "finished", "pruned", "failed", "finished"]
JOBS = [1, 2, 3, 4, 5]


def test_each_kind_of_job_has_its_sign_and_its_place():
    history = sweep({}, VALUES, STATUSES, JOBS, "val/loss", "min", "a search").axes[0]
    assert points(history, "o", "full") == [(1, 0.5), (2, 0.3), (5, 0.4)]
    assert points(history, "o", "hollow") == [(3, 0.9)]
    assert [x for x, _ in points(history, "x")] == [4]
    assert history.get_ylabel() == "val/loss" and history.get_xlabel() == "job"


@pytest.mark.parametrize(
    ("mode", "best", "steps"), [("min", "#2: 0.3", [0.5, 0.3, 0.3, 0.3, 0.3]), ("max", "#1: 0.5", [0.5] * 5)]
)
def test_the_best_is_told_and_its_line_never_turns_back(mode, best, steps):
    figure = sweep({}, VALUES, STATUSES, JOBS, "val/loss", mode, "")
    assert (
        best in texts(figure) and "3 finished" in texts(figure) and "1 pruned" in texts(figure) and "1 failed" in texts(figure)
    )
    line = next(line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    np.testing.assert_allclose(line.get_ydata()[:-1], steps)


def test_a_value_before_any_job_has_finished_is_no_best():
    figure = sweep({}, [0.1, None], ["pruned", "failed"], [1, 2], "val/loss", "min", "")
    assert "best" not in texts(figure) and points(figure.axes[0], "o", "hollow") == [(1, 0.1)]


def test_a_parameter_that_is_the_same_everywhere_has_no_panel():
    params = {"optimizer.lr": [0.1, 0.2, 0.3, 0.4, 0.5], "seed": [1] * 5}
    figure = sweep(params, VALUES, STATUSES, JOBS, "val/loss", "min", "")
    assert [axes.get_xlabel() for axes in figure.axes] == ["job", "optimizer.lr"]


def test_rates_stand_on_a_log_scale_and_few_numbers_and_words_beside_each_other():
    count = 9
    params = {
        "rate": list(np.geomspace(1e-3, 1, count)),
        "decay": list(np.linspace(1, 2, count)),
        "momentum": [0.95, 0.0, 0.9] * 3,
        "optimizer": ["sgd", "adamw", "sgd"] * 3,
    }
    figure = sweep(params, list(np.linspace(1, 2, count)), ["finished"] * count, list(range(1, 10)), "loss", "min", "")
    panels = {axes.get_xlabel(): axes for axes in figure.axes}
    assert panels["rate"].get_xscale() == "log" and panels["decay"].get_xscale() == "linear"
    assert [label.get_text() for label in panels["momentum"].get_xticklabels()] == ["0", "0.9", "0.95"]
    assert [label.get_text() for label in panels["optimizer"].get_xticklabels()] == ["sgd", "adamw"]
    for name, column, kinds in (
        ("momentum", params["momentum"], [0.0, 0.9, 0.95]),
        ("optimizer", params["optimizer"], ["sgd", "adamw"]),
    ):
        assert [round(x) for x, _ in points(panels[name], "o", "full")] == [kinds.index(value) for value in column]


@pytest.mark.parametrize(
    ("values", "scale"), [([0.1, 0.5, 80.0], "log"), ([0.1, 0.2, 1.0], "linear"), ([-0.1, 0.5, 80.0], "linear")]
)
def test_one_wild_value_does_not_flatten_the_others(values, scale):
    assert sweep({}, values, ["finished"] * 3, [1, 2, 3], "loss", "min", "").axes[0].get_yscale() == scale


def test_nothing_yet():
    for values in ([], [None, None], [float("nan")]):
        figure = sweep({}, values, ["failed"] * len(values), list(range(len(values))), "loss", "min", "a search")
        assert "no job has a value yet" in texts(figure) and not figure.axes


def test_everything_is_inside_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    count = 40
    params = {f"model.a_long_name_of_a_parameter_{index}": list(rng.uniform(0, 10**index, count)) for index in range(5)}
    params["words"] = [f"a_very_long_word_for_a_choice_{index % 15}" for index in range(count)]
    values = list(rng.uniform(1e-4, 1e3, count))
    figure = sweep(params, values, ["finished"] * count, list(range(1, count + 1)), "val/a_long_name", "max", "a title " * 15)
    save(figure, tmp_path / "sweep.png")  # lays the figure out, with warnings as errors
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    for index, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[index + 1 :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "least"}, "mode must be min or max"),
        ({"statuses": ["finished"]}, "statuses"),
        ({"params": {"lr": [1]}}, "lr must"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    given = {"params": {}, "values": VALUES, "statuses": STATUSES, "jobs": JOBS, "metric": "loss", "mode": "min", "title": ""}
    with pytest.raises(ValueError, match=message):
        sweep(**given | change)
