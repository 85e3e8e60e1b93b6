"""Learning curves: the right panel, scale and words for every metric, and no number that was not there."""

from itertools import pairwise

import numpy as np
import pytest

from dlzoo.plots.curves import curves
from dlzoo.plots.figure import save


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def panels(figure) -> dict[str, object]:
    return {axes.get_ylabel(): axes for axes in figure.axes}


def line(axes, color: str):
    """The widest line of a colour, which is the one to be read."""
    return max((item for item in axes.lines if item.get_color() == color), key=lambda item: item.get_linewidth())


TRAIN, VAL = "#0072B2", "#D55E00"


def test_losses_share_a_panel_and_so_do_accuracies():
    history = {
        "lr": ([1, 2], [0.1, 0.2]),
        "val/acc": ([1, 2], [0.5, 0.75]),
        "train/loss": ([1, 2], [3.0, 2.0]),
        "val/loss": ([1, 2], [3.5, 2.5]),
        "train/grad_norm": ([1, 2], [1.0, 1.5]),
    }
    figure = curves(history, "a run")
    assert list(panels(figure)) == ["loss", "accuracy (%)", "grad_norm", "learning rate"]
    assert [len(axes.lines) for axes in figure.axes] == [3, 2, 1, 1]  # with the rings of the best
    assert figure.axes[-1].get_xlabel() == "step (batches)"
    assert figure.get_suptitle() == "a run"


def test_last_and_best_are_told():
    words = texts(curves({"val/loss": ([10, 20, 30], [0.9, 0.4, 0.5]), "val/acc": ([10, 20, 30], [0.5, 0.91, 0.9])}, ""))
    assert "val 0.5\nbest 0.4 at 20" in words
    assert "val 90.0 %\nbest 91.0 % at 20" in words


def test_the_peak_of_the_learning_rate_is_told():
    assert "lr 0.001\npeak 0.1" in texts(curves({"lr": ([1, 2, 3], [0.01, 0.1, 0.001])}, ""))


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("train/loss", [5.0, 0.04], "log"),
        ("train/loss", [5.0, 0.06], "linear"),  # less than two decades
        ("train/loss", [5.0, 0.0], "linear"),  # no logarithm
        ("train/loss", [5.0, -0.01], "linear"),
        ("lr", [0.1, 1e-6], "linear"),
        ("val/acc", [0.001, 0.9], "linear"),
    ],
)
def test_only_a_loss_of_more_than_two_decades_is_logarithmic(name, values, scale):
    assert curves({name: ([1, 2], values)}, "").axes[0].get_yscale() == scale


def test_no_data_yet():
    for history in ({}, {"train/loss": ([], [])}):
        figure = curves(history, "a run")
        assert "no data yet" in texts(figure)
        assert not figure.axes


def test_values_that_are_not_finite_are_left_out_and_told(tmp_path):
    steps = [10, 20, 30, 40, 50]
    figure = curves(
        {"train/loss": (steps, [2.0, 1.0, float("nan"), float("inf"), 0.5]), "val/loss": ([25, 50], [1.5, float("nan")])}, ""
    )
    save(figure, tmp_path / "curves.png")  # with warnings as errors
    drawn = line(figure.axes[0], TRAIN).get_ydata()
    np.testing.assert_array_equal(drawn, [2.0, 1.0, np.nan, np.nan, 0.5])
    words = texts(figure)
    assert "3 values not finite, from step 30" in words
    assert "best 1.5 at 25" in words


def test_a_metric_without_one_finite_value(tmp_path):
    figure = curves({"train/loss": ([1, 2], [float("nan")] * 2), "val/loss": ([1, 2], [float("inf"), float("-inf")])}, "")
    save(figure, tmp_path / "curves.png")
    assert "train: no finite value" in texts(figure)
    assert "val: no finite value" in texts(figure)


def test_few_points_are_marked_and_many_are_not():
    few = curves({"train/loss": (range(12), np.linspace(3, 2, 12))}, "").axes[0]
    many = curves({"train/loss": (range(400), np.linspace(3, 2, 400))}, "").axes[0]
    assert line(few, TRAIN).get_marker() == "o"
    assert line(many, TRAIN).get_marker() == "None"


def test_noise_is_pale_below_its_average_and_a_smooth_line_is_left_alone():
    steps, random = np.arange(500), np.random.default_rng(0)
    clean = 2 * np.exp(-steps / 200) + 1
    noisy = curves({"train/loss": (steps, clean + random.normal(0, 0.2, 500))}, "").axes[0]
    pale, average = sorted(noisy.lines, key=lambda item: item.get_linewidth())
    assert pale.get_alpha() < 0.5
    inner = slice(20, -20)  # at the ends the window is cut
    assert np.abs(average.get_ydata() - clean)[inner].max() < np.abs(pale.get_ydata() - clean)[inner].max() / 3
    assert len(curves({"train/loss": (steps, clean)}, "").axes[0].lines) == 1


def test_a_million_points_are_thinned_without_losing_a_spike():
    values = np.ones(1_000_000)
    values[765_432] = 9.0
    drawn = curves({"train/loss": (np.arange(len(values)), values)}, "").axes[0].lines[0]
    assert len(drawn.get_xdata()) <= 2000
    assert (765_432, 9.0) in list(zip(drawn.get_xdata(), drawn.get_ydata(), strict=True))


def test_labels_do_not_cover_each_other(tmp_path):
    """Each stands at the height of its line, unless two lines end at the same height."""
    names = ("train/loss", "val/loss", "test/loss")
    figure = curves({name: ([1, 2], [4.0, 1.0 + 0.001 * index]) for index, name in enumerate(names)}, "")
    save(figure, tmp_path / "laid_out.png")  # lays the figure out
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 3
    for lower, upper in pairwise(boxes):
        assert lower.y1 <= upper.y0 + 1
    far = curves({"train/loss": ([1, 2], [4.0, 1.0]), "val/loss": ([1, 2], [4.0, 3.0])}, "").axes[0]
    heights = {text.get_text()[:3]: text.get_position()[1] for text in far.texts}
    assert heights["tra"] < 0.1 and 0.6 < heights["val"] < 0.75


def test_everything_is_inside_the_picture(tmp_path):
    """The margins are reckoned from the words, without drawing them first."""
    history = {
        "train/a_long_name_of_some_auxiliary_loss": ([1, 2_000_000], [1234567.0, 0.0001]),
        "val/loss": ([1, 2_000_000], [-1234.5, 0.25]),
        "lr": ([1, 2_000_000], [0.00125, 0.00175]),
    }
    figure = curves(history, "a title " * 12)
    save(figure, tmp_path / "laid_out.png")
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    title = figure._suptitle.get_window_extent()
    assert title.x1 <= figure.bbox.x1 and title.y0 >= max(box.y1 for box in boxes)
    for upper, lower in pairwise(figure.axes):
        assert min(text.get_window_extent().y0 for text in upper.texts) >= max(
            text.get_window_extent().y1 for text in lower.texts
        )


def test_accuracy_beyond_one_is_percent_already():
    assert list(panels(curves({"val/acc": ([1, 2], [50.0, 91.0])}, ""))) == ["accuracy"]


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="train/loss must have as many steps as values, got 2 and 1"):
        curves({"train/loss": ([1, 2], [1.0])}, "")
