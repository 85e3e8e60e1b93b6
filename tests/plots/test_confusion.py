"""The confusion matrix: rows are the truth, colours are shares of it, counts are told."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from dlzoo.plots.confusion import Groups, confusion
from dlzoo.plots.figure import save


def cells(figure) -> dict[tuple[int, int], str]:
    """Row and column -> what is written there."""
    written = {}
    for text in figure.axes[0].texts:
        column, row = text.get_position()
        written[int(row), int(column)] = text.get_text()
    return written


def test_colours_are_shares_of_the_true_class_and_cells_hold_counts():
    figure = confusion(torch.tensor([[8, 2], [1, 3]]), ["ants", "bees"], "ResNet-18")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0.25, 0.75]])
    assert cells(figure) == {(0, 0): "8", (0, 1): "2", (1, 0): "1", (1, 1): "3"}
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["predicted class", "true class"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ants", "bees"]
    assert axes.get_title(loc="left") == "11 of 14 right: 78.6 %"
    assert figure.get_suptitle() == "ResNet-18"


def test_counts_can_be_read_on_their_colour():
    figure = confusion(torch.tensor([[95, 5], [60, 40]]), ["a", "b"], "")
    color = {place: text.get_color() for place, text in zip(cells(figure), figure.axes[0].texts, strict=True)}
    assert color[0, 0] == "white" != color[0, 1]


def test_a_class_without_samples_has_no_share():
    figure = confusion(torch.tensor([[3, 1], [0, 0]]), ["a", "b"], "")
    assert figure.axes[0].images[0].get_array().mask.tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("k", [10, 20])
def test_up_to_twenty_classes_show_counts(k):
    assert len(cells(confusion(np.eye(k) * 7 + 1, [f"class {index}" for index in range(k)], ""))) == k * k


def test_a_hundred_classes_list_their_worst_confusions(tmp_path):
    counts = np.eye(100) * 50
    counts[3, 97], counts[8, 2] = 30, 4
    names = [f"a class with a long name, number {index}" for index in range(100)]
    figure = confusion(counts, names, "ResNet-18 on CIFAR-100")
    head, worst = figure.axes[0].texts
    assert head.get_text() == "most frequent mistakes"
    assert worst.get_text().replace("\N{FIGURE SPACE}", " ").splitlines() == [
        "30  a class with...number 3 as a class with...umber 97",
        " 4  a class with...number 8 as a class with...number 2",
    ]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == 100  # shortened, and still told apart
    save(figure, tmp_path / "confusion.png")
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(lower.y1 <= upper.y0 + 1 for upper, lower in pairwise(boxes))
    page = figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in (*boxes, worst.get_window_extent()))


@pytest.mark.parametrize(
    "names",
    [list("01"), [f"{index}" for index in range(10)], [f"a class with a long name, number {index}" for index in range(20)]],
    ids=["two", "ten", "twenty long"],
)
def test_everything_is_inside_the_picture(tmp_path, names):
    """The figure is as large as its words need; they are measured, not drawn first."""
    figure = confusion(np.eye(len(names)) * 1000 + 1, names, "resnet20 on the digits of many hands")
    save(figure, tmp_path / "confusion.png")
    axes = figure.axes[0]
    for box in (axes.get_tightbbox(), figure._suptitle.get_window_extent()):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    square = axes.get_window_extent()
    assert square.width == pytest.approx(square.height, rel=0.01)  # the axes fill their place, nothing is left empty
    names_below = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x0 < right.x0 for left, right in pairwise(names_below))


def test_no_mistake_is_told():
    assert confusion(np.eye(30), [f"{index}" for index in range(30)], "").axes[0].texts[1].get_text() == "none"


def test_a_thousand_classes_name_only_some():
    axes = confusion(np.eye(1000), [f"{index}" for index in range(1000)], "").axes[0]
    assert len(axes.get_yticks()) <= 120


def test_no_data_yet():
    figure = confusion(torch.zeros(3, 3), list("abc"), "")
    assert "no data yet" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (torch.zeros(2, 3), ["a", "b"], r"square, got shape \(2, 3\)"),
        (torch.ones(2, 2), ["a"], "classes must be 2 names, got 1"),
        (-torch.ones(2, 2), ["a", "b"], "negative or not finite"),
        (torch.full((2, 2), float("nan")), ["a", "b"], "negative or not finite"),
    ],
)
def test_wrong_arguments_are_named(matrix, names, message):
    with pytest.raises(ValueError, match=message):
        confusion(matrix, names, "")


# --- groups

OF = [1, 0, 1, 0, 2, 1]
ANIMALS = Groups(["birds", "fish", "insects"], OF)
NAMES = ["cod", "owl", "eel", "jay", "ant", "ray"]


def test_classes_of_a_group_stand_side_by_side():
    counts = np.arange(36.0).reshape(6, 6)
    figure = confusion(counts, NAMES, "", ANIMALS)
    order = [1, 3, 0, 2, 5, 4]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [NAMES[index] for index in order]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [NAMES[index] for index in order]
    rows = counts[order][:, order]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), rows / rows.sum(1, keepdims=True))


def test_each_group_has_a_frame_and_its_name_at_the_height_of_its_classes():
    figure = confusion(np.eye(6) + 1, NAMES, "", ANIMALS)
    frames = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert [(frame.get_x(), frame.get_width()) for frame in frames] == [(-0.5, 2), (1.5, 3), (4.5, 1)]
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts if text.get_text() in ANIMALS.names}
    assert heights == {"birds": 0.5, "fish": 3.0, "insects": 5.0}


def test_counts_of_groups_are_sums_and_both_accuracies_are_told():
    counts = np.zeros((6, 6))
    counts[0, 0], counts[0, 5], counts[4, 1] = 2, 3, 5  # right; a fish as another fish; an insect as a bird
    assert ANIMALS.counts(torch.tensor(counts)).tolist() == [[0, 0, 0], [0, 5, 0], [5, 0, 0]]
    title = confusion(counts, NAMES, "", ANIMALS).axes[0].get_title(loc="left")
    assert title == "2 of 10 right: 20.0 %; the right group: 50.0 %"


def test_a_hundred_classes_in_twenty_groups_leave_room_for_all_names(tmp_path):
    """No name of a group reaches into the list of mistakes beside it, or out of the picture."""
    groups = Groups([f"a group with a rather long name {index}" for index in range(20)], [index % 20 for index in range(100)])
    figure = confusion(np.eye(100) * 9 + 1, [f"class {index}" for index in range(100)], "all", groups)
    save(figure, tmp_path / "confusion.png")
    texts = figure.axes[0].texts
    names = [text.get_window_extent() for text in texts if text.get_text().startswith("a group")]
    head = next(text.get_window_extent() for text in texts if text.get_text() == "most frequent mistakes")
    matrix = figure.axes[0].get_window_extent()
    assert len(names) == 20
    assert all(matrix.x1 < name.x0 and name.x1 < head.x0 for name in names)
    assert all(not one.overlaps(other) for one, other in pairwise(names))
    assert head.x1 < figure.bbox.x1


@pytest.mark.parametrize("of", [[0, 1], [0, 1, 3], [0, 1, -1]])
def test_groups_that_do_not_fit_are_refused(of):
    with pytest.raises(ValueError, match="groups must name one of 3 groups for each of 3 classes"):
        confusion(np.eye(3), ["a", "b", "c"], "", Groups(["x", "y", "z"], of))
