import pytest
import torch

from dlzoo.errors import CheckpointError
from dlzoo.pretrained import renaming

RULES = ((r"^features\.", "stages."), (r"^stages\.0\.", "stem."), (r"^classifier\.", "head."))


def published() -> dict[str, torch.Tensor]:
    return {
        "features.0.weight": torch.full((4, 3, 3, 3), 1.0),
        "features.1.weight": torch.full((4,), 2.0),
        "features.1.running_var": torch.full((4,), 3.0),
        "classifier.weight": torch.full((5, 4), 4.0),
    }


def own(classes: int = 5, width: int = 4) -> dict[str, torch.Tensor]:
    return {
        "stem.weight": torch.zeros(width, 3, 3, 3),
        "stages.1.weight": torch.zeros(width),
        "stages.1.running_var": torch.zeros(width),
        "stages.1.num_batches_tracked": torch.tensor(0),
        "head.weight": torch.zeros(classes, width),
    }


def test_rules_apply_in_turn_and_tensors_are_shared():
    state = published()
    converted = renaming.converter(RULES)("net", state)
    assert list(converted) == list(own())
    assert converted["stem.weight"] is state["features.0.weight"]
    assert converted["head.weight"] is state["classifier.weight"]


def test_a_counter_is_kept_and_a_missing_one_is_zero():
    state = published()
    convert = renaming.converter(RULES)
    assert convert("net", state)["stages.1.num_batches_tracked"] == 0
    assert convert("net", state | {"features.1.num_batches_tracked": torch.tensor(7)})["stages.1.num_batches_tracked"] == 7


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_are_taken_off(wrapper):
    wrapped = {wrapper: {f"module.{key}": tensor for key, tensor in published().items()}, "epoch": 3}
    assert list(renaming.converter(RULES)("net", wrapped)) == list(own())


def refusal(call, *arguments) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) <= 12
    return str(caught.value)


def test_a_name_that_no_rule_finds_is_named():
    text = refusal(renaming.converter(RULES), "net", published() | {"conv1.weight": torch.zeros(2, 1)})
    assert "does not hold the weights of net" in text
    assert "5 tensors: features.0.weight (4, 3, 3, 3) ... conv1.weight (2, 1)" in text
    assert "unexpected 1: conv1.weight (2, 1)" in text and "missing" not in text


def test_the_check_names_what_is_missing_too_much_or_of_another_shape():
    convert = renaming.converter(RULES)
    state = published()
    converted = convert("net", state)
    renaming.check("net", converted, own())
    renaming.check("net", converted, own(classes=9))  # the ends may differ
    more = own() | {"stages.2.bias": torch.zeros(8)}
    assert "missing 1: stages.2.bias (8)" in refusal(renaming.check, "net", converted, more)
    fewer = {key: tensor for key, tensor in own().items() if key != "stages.1.weight"}
    assert "unexpected 1: stages.1.weight (4)" in refusal(renaming.check, "net", converted, fewer)
    text = refusal(renaming.check, "net", converted, own(width=6))
    assert "missing 0\n" in text and "other shape 4: stem.weight (4, 3, 3, 3) for (6, 3, 3, 3)" in text


@pytest.mark.parametrize("state", [{}, {"epoch": 3}, {"state_dict": {}}, {"model": {"model": 1}}, [1, 2], None])
def test_a_file_without_tensors_is_refused(state):
    assert "there are no tensors in it" in refusal(renaming.converter(RULES), "net", state)
