import re

import pytest
import torch
import torchvision

from dlzoo import pretrained
from dlzoo.errors import CheckpointError
from dlzoo.models.vision import efficientnet

NAMES = [*(f"efficientnet_b{n}" for n in range(8)), *(f"efficientnet_v2_{size}" for size in "sml")]


def numbered(make) -> dict[str, torch.Tensor]:
    """A state dict in which every tensor holds its own number, so that a swap shows."""
    with torch.device("meta"):
        state = make().state_dict()
    return {key: torch.full((), i, dtype=tensor.dtype).expand(tensor.shape) for i, (key, tensor) in enumerate(state.items())}


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_by_name(name):
    theirs = numbered(getattr(torchvision.models, name))
    with torch.device("meta"):
        own = getattr(efficientnet, name)().state_dict()
    converted = pretrained.convert(name, dict(reversed(theirs.items())), own)  # the order of the file does not matter
    assert set(converted) == set(own)
    assert all(converted[key].shape == own[key].shape for key in own)
    # both stand in the order of the forward pass, so the same number means the same place
    assert [int(converted[key].flatten()[0]) for key in own] == list(range(len(own)))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("efficientnet_b0", "efficientnet_v2_s"),
        ("efficientnet_v2_s", "efficientnet_b0"),
        ("efficientnet_b0", "efficientnet_b1"),
        ("efficientnet_v2_l", "efficientnet_v2_m"),
        ("efficientnet_b0", "resnet18"),
    ],
)
def test_another_model_is_refused(asked, given):
    with torch.device("meta"):
        own = getattr(efficientnet, asked)().state_dict()
    with pytest.raises(CheckpointError, match=f"does not hold the weights of {asked}"):
        pretrained.convert(asked, numbered(getattr(torchvision.models, given)), own)


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_torchvisions_default(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    source = pretrained.source(name)
    assert source.url == weights.url
    assert source.sha256 == re.search(r"-([0-9a-f]{8})\.pth$", weights.url)[1]
    for accuracy in weights.meta["_metrics"]["ImageNet-1K"].values():
        assert f"{accuracy:.3f} %" in source.accuracy
    preset = weights.transforms()
    assert (list(source.mean), list(source.std)) == (list(preset.mean), list(preset.std))
    assert f"one crop of {preset.crop_size[0]}" in source.accuracy
    assert weights.name in source.paper
