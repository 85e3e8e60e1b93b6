import re

import pytest
import timm
import torch
import torchvision

from dlzoo import pretrained
from dlzoo.errors import CheckpointError
from dlzoo.models.vision import vit

NAMES = ("vit_tiny", "vit_small", "vit_base")


def numbered(make, **arguments) -> dict[str, torch.Tensor]:
    """A state dict in which every tensor holds its own number, so that a swap shows."""
    with torch.device("meta"):
        state = make(**arguments).state_dict()
    return {key: torch.zeros(tensor.shape, dtype=tensor.dtype) + i for i, (key, tensor) in enumerate(state.items())}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_deit_fills_the_model(name):
    file = {"model": numbered(timm.create_model, model_name=f"deit_{name.removeprefix('vit_')}_patch16_224")}
    with torch.device("meta"):
        own = getattr(vit, name)().state_dict()
    converted = pretrained.convert(name, file)
    assert {key: tensor.shape for key, tensor in converted.items()} == {key: tensor.shape for key, tensor in own.items()}
    assert len({float(tensor.flatten()[0]) for tensor in converted.values()}) == len(own)


def test_torchvisions_names_fill_the_model_too():
    with torch.device("meta"):
        own = vit.vit_base().state_dict()
    converted = pretrained.convert("vit_base", numbered(torchvision.models.vit_b_16))
    assert {key: tensor.shape for key, tensor in converted.items()} == {key: tensor.shape for key, tensor in own.items()}


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_those_that_timm_names(name):
    source = pretrained.source(name)
    config = timm.models.get_pretrained_cfg(f"deit_{name.removeprefix('vit_')}_patch16_224.fb_in1k")
    assert source.url == config.url
    assert source.sha256 == re.search(r"-([0-9a-f]{8})\.pth$", source.url)[1]
    assert (source.mean, source.std) == (config.mean, config.std)
    assert source.licence == "Apache-2.0" and "top-1" in source.accuracy


def test_another_model_is_refused():
    with pytest.raises(CheckpointError, match="does not hold the weights of vit_tiny"):
        pretrained.convert("vit_tiny", numbered(torchvision.models.resnet18))
    with pytest.raises(CheckpointError, match="dist_token"):
        pretrained.convert("vit_tiny", numbered(timm.create_model, model_name="deit_tiny_distilled_patch16_224"))
