"""The published files of the families that differ from torchvision by their names alone."""

import re

import pytest
import torch
import torchvision

from dlzoo import pretrained, zoo
from dlzoo.errors import CheckpointError

NAMES = [
    *("densenet121", "densenet161", "densenet169", "densenet201", "mobilenet_v2"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
]


def meta(make, *words) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return make(*words).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_the_file_fills_the_model_in_order(name):
    """Both stand in the order of the forward pass: the same place holds the same tensor."""
    theirs, own = meta(getattr(torchvision.models, name)), meta(zoo.create_model, name)
    converted = pretrained.convert(name, theirs, own)
    assert list(converted) == list(own)
    assert all(one is two for one, two in zip(converted.values(), theirs.values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_torchvisions_default(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    source = pretrained.source(name)
    assert source.url == weights.url
    assert source.sha256 == re.search(r"-([0-9a-f]{8})\.pth$", weights.url)[1]
    for accuracy in weights.meta["_metrics"]["ImageNet-1K"].values():
        assert f"{accuracy:.3f} %" in source.accuracy
    preset = weights.transforms()
    assert (list(source.mean), list(source.std), preset.crop_size) == (preset.mean, preset.std, [224])


def test_the_old_names_of_the_densenet_files():
    """They were written before torch forbade dots in names, and count no batches."""
    theirs = meta(torchvision.models.densenet121)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): tensor
        for key, tensor in theirs.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    converted = pretrained.convert("densenet121", old, meta(zoo.create_model, "densenet121"))
    assert converted["stages.0.layers.0.norm1.weight"] is theirs["features.denseblock1.denselayer1.norm1.weight"]
    assert converted["stages.0.layers.0.norm1.num_batches_tracked"] == 0


@pytest.mark.parametrize(("name", "other"), [("densenet121", "densenet169"), ("vgg16", "vgg16_bn"), ("vgg16", "vgg11")])
def test_another_size_is_refused(name, other):
    state, own = meta(getattr(torchvision.models, other)), meta(zoo.create_model, name)
    with pytest.raises(CheckpointError, match=f"does not hold the weights of {name}"):
        pretrained.convert(name, state, own)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "vgg16"])
def test_another_family_is_refused(name):
    with pytest.raises(CheckpointError, match="unexpected"):
        pretrained.convert(name, meta(torchvision.models.resnet18))
