"""What the stages of a network are, for ours, timm's and anybody's; and the smaller rates of the earlier ones."""

import functools

import pytest
import torch
from torch import nn

import dlzoo
from dlzoo import zoo
from dlzoo.optim.groups import by_stage, parameter_groups
from dlzoo.optim.stages import head_prefixes, stages


class Odd(nn.Module):
    """Tokens of its own, a row of blocks, a norm behind it, and a head with another name."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 3))
        self.embed = nn.Linear(4, 3)
        self.drop = nn.Dropout()
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.norm = nn.LayerNorm(3)
        self.out = nn.Linear(3, 2)


def test_a_row_of_modules_is_opened_and_all_else_finds_its_place():
    assert stages(Odd()) == {
        "stem": ["token", "embed.weight", "embed.bias"],
        "blocks.0": ["blocks.0.weight", "blocks.0.bias"],
        "blocks.1": ["blocks.1.weight", "blocks.1.bias", "norm.weight", "norm.bias"],
        "out": ["out.weight", "out.bias"],
    }
    assert head_prefixes(Odd()) == ("out.",)


def test_resnet18_has_a_stem_four_stages_and_a_head():
    with torch.device("meta"):
        found = stages(dlzoo.create_model("resnet18"))
    assert list(found) == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"]
    assert found["stem"] == ["stem.0.weight", "stem.1.weight", "stem.1.bias"] and found["head"] == ["head.weight", "head.bias"]


def test_children_without_a_row_are_stages():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Linear(4, 2))
    assert list(stages(net)) == ["0", "2", "3"]


@pytest.mark.parametrize("net", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.ReLU()], ids=["layer", "one", "none"])
def test_a_head_alone_is_refused(net):
    with pytest.raises(ValueError, match="no stages in front of a head"):
        stages(net)


# one of each file that classifies, the smallest name of it
CLASSIFIERS = [name for name in zoo.list_models() if name != "timm" and "num_classes" in zoo.model_info(name).arguments]
OF_EACH_FILE = {zoo.model_info(name).target.rpartition(".")[0]: name for name in reversed(CLASSIFIERS)}


@pytest.mark.parametrize("name", OF_EACH_FILE.values())
def test_every_classifier_of_the_zoo_has_each_parameter_in_one_stage_and_its_head_last(name):
    net = dlzoo.create_model(name)
    found = stages(net)
    assert sorted(each for names in found.values() for each in names) == sorted(each for each, _ in net.named_parameters())
    assert list(found)[-1] == "head" and head_prefixes(net)[0].startswith("head.")


@pytest.mark.parametrize(
    ("name", "count", "head"),
    [
        ("resnet18", 6, "fc"),
        ("vit_tiny_patch16_224", 14, "head"),
        ("convnext_atto", 6, "head"),
        ("mobilenetv3_small_050", 8, "classifier"),
        ("deit_tiny_distilled_patch16_224", 14, "head"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_timm_says_what_its_stages_are(name, count, head, wrapped):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        inner = timm.create_model(name, num_classes=3)
    net = nn.ModuleDict({"body": inner}) if wrapped else inner
    found = stages(net)
    assert sorted(each for names in found.values() for each in names) == sorted(each for each, _ in net.named_parameters())
    last = [each.removeprefix("body.") for each in list(found.values())[-1]]
    assert len(found) == count and all(each.startswith(head) for each in last)
    assert all(prefix.removeprefix("body.").startswith(head) for prefix in head_prefixes(net))


@pytest.mark.parametrize("decayed", [True, False])
def test_each_earlier_stage_has_a_smaller_rate_and_keeps_its_decay(decayed):
    net = Odd()
    build = functools.partial(torch.optim.SGD, lr=0.8, weight_decay=0.3)
    optimizer = by_stage(parameter_groups(net, decayed), build=build, net=net, decay=0.5)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"token": 0.1, "embed": 0.1, "blocks.0": 0.2, "blocks.1": 0.4, "norm": 0.4, "out": 0.8}
    for name, parameter in net.named_parameters():
        stage = next(key for key in expected if name.startswith(key))
        assert rate[id(parameter)] == pytest.approx(expected[stage]), name
        assert decay[id(parameter)] == (0.3 if decayed or (parameter.ndim > 1 and "norm" not in name) else 0), name
    assert optimizer.param_groups[0]["lr"] == 0.8, "the report shows the head's"


def test_a_schedule_scales_all_rates_alike():
    net = Odd()
    optimizer = by_stage(net.parameters(), build=functools.partial(torch.optim.SGD, lr=0.8), net=net, decay=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4, 0.2, 0.1, 0.05])


def test_all_of_a_head_is_the_head_what_has_no_parameters_too():
    net = Odd()
    net.out = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2))
    assert head_prefixes(net) == ("out.",)
