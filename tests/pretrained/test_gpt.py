"""GPT-2's published files. That the converted weights compute the same is tested in tests/models/language/test_gpt.py."""

import pytest
import torch

from dlzoo import pretrained, zoo
from dlzoo.errors import CheckpointError, DataError
from dlzoo.models.language import gpt
from dlzoo.pretrained.gpt import convert

LAYERS = {"gpt2": (12, 768), "gpt2_medium": (24, 1024), "gpt2_large": (36, 1280), "gpt2_xl": (48, 1600)}


def published(name: str) -> dict[str, torch.Tensor]:
    """The names and shapes of the published file, in its order; every tensor holds its own number, so that a swap shows."""
    layers, width = LAYERS[name]
    shapes = {"wte.weight": (50_257, width), "wpe.weight": (1024, width)}
    for layer in range(layers):
        of_layer = {"ln_1.weight": (width,), "ln_1.bias": (width,), "attn.bias": (1, 1, 1024, 1024)}
        of_layer |= {"attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,)}
        of_layer |= {"attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,)}
        of_layer |= {"ln_2.weight": (width,), "ln_2.bias": (width,)}
        of_layer |= {"mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,)}
        of_layer |= {"mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,)}
        shapes |= {f"h.{layer}.{key}": shape for key, shape in of_layer.items()}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    return {key: torch.full((), float(i)).expand(shape) for i, (key, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("name", LAYERS)
def test_the_file_fills_the_model_in_order(name):
    """Both stand in the order of the forward pass: the same place holds the same tensor."""
    with torch.device("meta"):
        own = getattr(gpt, name)().state_dict()
    theirs = published(name)
    converted = convert(name, theirs)
    assert {key: tensor.shape for key, tensor in converted.items()} == {key: tensor.shape for key, tensor in own.items()}
    expected = [tensor.flatten()[0] for key, tensor in theirs.items() if not key.endswith(".attn.bias")]
    assert [converted[key].flatten()[0] for key in own] == expected


def test_what_transformers_saves_today_is_the_same():
    old = published("gpt2")
    new = {f"transformer.{key}": tensor for key, tensor in old.items() if not key.endswith(".attn.bias")}
    new["lm_head.weight"] = new["transformer.wte.weight"]
    one, two = convert("gpt2", old), convert("gpt2", new)
    assert list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


def test_linear_maps_are_turned_and_shared():
    theirs = {"h.0.mlp.c_fc.weight": torch.randn(3, 12), "wte.weight": torch.randn(5, 3)}
    converted = pretrained.convert("gpt2", theirs)
    assert torch.equal(converted["blocks.0.mlp.0.weight"], theirs["h.0.mlp.c_fc.weight"].T)
    assert converted["blocks.0.mlp.0.weight"].data_ptr() == theirs["h.0.mlp.c_fc.weight"].data_ptr()
    assert converted["tokens.weight"] is theirs["wte.weight"]


def test_another_model_is_refused():
    with torch.device("meta"):
        own = gpt.gpt2().state_dict()
    with pytest.raises(CheckpointError, match="does not hold the weights of gpt2"):
        pretrained.convert("gpt2", {"conv1.weight": torch.zeros(2, 1)})
    with pytest.raises(CheckpointError, match="does not hold the weights of gpt2"):
        pretrained.convert("gpt2", published("gpt2_medium"), own)
    with pytest.raises(CheckpointError, match="does not hold the weights of gpt2"):
        pretrained.convert("gpt2", {"h.0.attn.bias": torch.zeros(1)})


def test_the_source_says_where_how_long_and_whose():
    source = pretrained.source("gpt2")
    assert source.url.startswith("https://huggingface.co/openai-community/gpt2/") and len(source.sha256) == 64
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in gpt.gpt2().parameters())
    assert 4 * weights < source.size < 4 * (weights + 12 * 1024**2) + 2**20  # with the masks, and names


def test_a_file_of_a_common_name_is_kept_under_one_of_its_own(monkeypatch, tmp_path):
    """On the hub every model's file is pytorch_model.bin, and torchvision's names hold the hash."""
    asked = []

    def fetch(urls, path, **facts):
        asked.append(path.name)
        raise DataError("no network")

    monkeypatch.setattr("dlzoo.data.download.fetch", fetch)
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path))
    for name in ("gpt2", "resnet18"):
        with pytest.raises(DataError, match="no network"):
            zoo.load_published(torch.nn.Linear(1, 1), name)
    assert asked == ["gpt2-7c5d3f4b-pytorch_model.bin", "resnet18-f37072fd.pth"]
