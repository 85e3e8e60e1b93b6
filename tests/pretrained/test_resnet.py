import re

import pytest
import torch
import torchvision

from dlzoo import pretrained
from dlzoo.errors import CheckpointError, ConfigError
from dlzoo.models.vision import resnet

CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def numbered(make, **arguments) -> dict[str, torch.Tensor]:
    """A state dict in which every tensor holds its own number, so that a swap shows."""
    with torch.device("meta"):
        state = make(**arguments).state_dict()
    return {key: torch.zeros(tensor.shape, dtype=tensor.dtype) + i for i, (key, tensor) in enumerate(state.items())}


def published(name: str) -> dict[str, torch.Tensor]:
    """As the CIFAR files are: other names, in order, no counters of the older ones, inside two wrappers."""
    old = {"stem.0": "conv1", "stem.1": "bn1", "stages.": "layer", "norm": "bn", "head": "linear"}
    state = {}
    for key, tensor in numbered(getattr(resnet, name)).items():
        for ours, theirs in old.items():
            key = key.replace(ours, theirs)
        if not key.endswith("num_batches_tracked"):
            state[f"module.{key}"] = tensor
    return {"best_prec1": 91.73, "state_dict": state}


@pytest.mark.parametrize("name", IMAGENET)
def test_torchvision_by_name(name):
    theirs = numbered(getattr(torchvision.models, name))
    with torch.device("meta"):
        own = getattr(resnet, name)().state_dict()
    converted = pretrained.convert(name, dict(reversed(theirs.items())))  # the order of the file does not matter
    assert list(converted) == list(own)
    # both stand in the order of the forward pass, so the same number means the same place
    assert [int(tensor.flatten()[0]) for tensor in converted.values()] == list(range(len(own)))
    assert all(converted[key].shape == own[key].shape for key in own)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_by_order(name):
    own = numbered(getattr(resnet, name))
    converted = pretrained.convert(name, published(name))
    assert list(converted) == list(own)
    for key, tensor in own.items():
        assert torch.equal(converted[key], torch.zeros_like(tensor) if key.endswith("num_batches_tracked") else tensor), key


def test_counters_are_kept_where_the_file_has_them():
    own = numbered(resnet.resnet20)
    assert all(torch.equal(tensor, own[key]) for key, tensor in pretrained.convert("resnet20", own).items())


@pytest.mark.parametrize(("name", "make"), [("resnet20", resnet.resnet20), ("resnet18", torchvision.models.resnet18)])
def test_classes_and_image_channels_are_free(name, make):
    state = numbered(make, num_classes=7)
    first = next(iter(state))
    state[first] = state[first][:, :1]
    converted = pretrained.convert(name, state)
    assert converted["head.bias"].shape == (7,)
    assert converted["stem.0.weight"].shape[1] == 1


def refusal(name: str, state) -> str:
    with pytest.raises(CheckpointError) as caught:
        pretrained.convert(name, state)
    text = str(caught.value)
    assert len(text.splitlines()) <= 12 and caught.value.exit_code == 6
    return text


def test_another_size_is_recognised():
    text = refusal("resnet50", numbered(torchvision.models.resnet18))
    assert "does not hold the weights of resnet50" in text
    assert "these are the weights of resnet18: conv1.weight (64, 3, 7, 7) ... fc.bias (1000)" in text
    missing, unexpected = re.search(r"missing (\d+): (.*)\n.*unexpected (\d+): (.*)", text).group(2, 4)
    assert missing.startswith("layer1.0.conv1.weight (64, 64, 1, 1)") and missing.count("(") == 3
    assert unexpected.startswith("layer1.0.conv1.weight (64, 64, 3, 3)") and unexpected.count("(") == 3
    assert "these are the weights of resnet32" in refusal("resnet20", published("resnet32"))


def test_option_b_is_not_option_a():
    text = refusal("resnet20", numbered(resnet.resnet20, shortcut="project"))
    assert "missing 0" in text and "unexpected 10: " in text  # two shortcuts of a convolution and a norm


def test_one_tensor_too_few_is_named():
    state = numbered(torchvision.models.resnet18)
    del state["layer3.0.downsample.1.running_var"]
    text = refusal("resnet18", state)
    assert "missing 1: layer3.0.downsample.1.running_var (256)" in text and "unexpected 0" in text


def test_another_order_is_refused():
    assert "in another order" in refusal("resnet20", dict(sorted(numbered(resnet.resnet20).items())))


def test_a_norms_bias_is_not_taken_for_its_weight():
    state = numbered(resnet.resnet20)
    keys = list(state)
    first, second = keys.index("stem.1.weight"), keys.index("stem.1.bias")
    keys[first], keys[second] = keys[second], keys[first]  # of one shape, so that only their names tell them apart
    assert "in another order" in refusal("resnet20", {key: state[key] for key in keys})


@pytest.mark.parametrize("state", [{}, {"epoch": 3, "optimizer": {}}, {"state_dict": {}}, [1, 2], None])
def test_a_file_without_tensors_is_refused(state):
    assert "there are no tensors in it" in refusal("resnet20", state)


@pytest.mark.parametrize("name", IMAGENET)
def test_sources_are_torchvisions_default(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    source = pretrained.source(name)
    assert source.url == weights.url
    assert source.sha256 == re.search(r"-([0-9a-f]{8})\.pth$", weights.url)[1]
    for accuracy in weights.meta["_metrics"]["ImageNet-1K"].values():
        assert f"{accuracy:.3f} %" in source.accuracy
    preset = weights.transforms()
    assert (list(source.mean), list(source.std)) == (preset.mean, preset.std)


@pytest.mark.parametrize("name", CIFAR)
def test_sources_of_cifar_agree_with_their_file_names(name):
    source = pretrained.source(name)
    model, prefix = re.fullmatch(r"https://github\.com/.+/(resnet\d+)-([0-9a-f]{8})\.th", source.url).groups()
    assert model == name
    assert source.sha256.startswith(prefix)
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", source.sha256)


def test_every_source_can_be_converted():
    assert set(pretrained.names()) >= {*CIFAR, *IMAGENET}
    for name in CIFAR + IMAGENET:
        assert pretrained.source(name).licence and pretrained.source(name).paper


@pytest.mark.parametrize("ask", [pretrained.source, lambda name: pretrained.convert(name, {})])
def test_unpublished_name(ask):
    with pytest.raises(ConfigError, match=r"no published weights for 'resnet21': did you mean .*'resnet20'"):
        ask("resnet21")
