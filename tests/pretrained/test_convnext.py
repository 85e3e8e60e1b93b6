import re

import pytest
import torch
import torchvision

from dlzoo import pretrained
from dlzoo.errors import CheckpointError
from dlzoo.models.vision import convnext


def numbered(make) -> dict[str, torch.Tensor]:
    """A state dict in which every tensor holds its own number, so that a swap shows."""
    with torch.device("meta"):
        state = make().state_dict()
    return {key: torch.zeros(tensor.shape, dtype=tensor.dtype) + i for i, (key, tensor) in enumerate(state.items())}


def test_torchvisions_file_fills_the_model():
    with torch.device("meta"):
        own = convnext.convnext_tiny().state_dict()
    converted = pretrained.convert("convnext_tiny", numbered(torchvision.models.convnext_tiny))
    assert {key: tensor.shape for key, tensor in converted.items()} == {key: tensor.shape for key, tensor in own.items()}
    assert len({float(tensor.flatten()[0]) for tensor in converted.values()}) == len(own)


def test_the_source_is_torchvisions_default():
    weights, source = torchvision.models.ConvNeXt_Tiny_Weights.DEFAULT, pretrained.source("convnext_tiny")
    assert source.url == weights.url
    assert source.sha256 == re.search(r"-([0-9a-f]{8})\.pth$", weights.url)[1]
    for accuracy in weights.meta["_metrics"]["ImageNet-1K"].values():
        assert f"{accuracy:.3f} %" in source.accuracy
    preset = weights.transforms()
    assert (list(source.mean), list(source.std)) == (preset.mean, preset.std)
    assert f"crop of {preset.crop_size[0]}" in source.accuracy


def test_another_model_is_refused():
    with pytest.raises(CheckpointError, match="does not hold the weights of convnext_tiny"):
        pretrained.convert("convnext_tiny", numbered(torchvision.models.resnet18))
