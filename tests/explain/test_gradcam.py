"""Grad-CAM: equal to pytorch-grad-cam's, changed by random weights, and on the object."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import dlzoo
from dlzoo.errors import ConfigError
from dlzoo.explain.gradcam import gradcam
from dlzoo.explain.layers import find, last_map


class Dense(nn.Module):
    """Two layers that hand on all that came before them, as a DenseNet does, with a norm and a relu at the end."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, padding=1))
        self.two = nn.Sequential(nn.BatchNorm2d(14), nn.ReLU(inplace=True), nn.Conv2d(14, 6, 3, stride=2, padding=1))
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.one(x.clone())], 1)
        return self.head(torch.relu(self.norm(self.two(x))).mean((2, 3)))


def _net(name):
    torch.manual_seed(0)
    net = Dense() if name == "dense" else dlzoo.create_model(name, num_classes=5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    nn.init.normal_(net.head.weight, std=1.0)
    return net.eval()


@pytest.mark.parametrize("plus_plus", [False, True], ids=["gradcam", "gradcam++"])
@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("resnet20", "stages.2.2", 24),
        ("resnet20", "stages.1.0.conv1", 24),
        ("resnet18", "stages.3.1", 64),
        ("dense", "norm", 20),
        ("dense", "stem", 20),
    ],
)
def test_equal_to_pytorch_grad_cam(name, layer, side, plus_plus):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net = _net(name)
    x = torch.randn(3, 3, side, side + 8, generator=torch.Generator().manual_seed(1))
    kind = GradCAMPlusPlus if plus_plus else GradCAM
    for targets in (None, [4, 0, 2]):
        other = copy.deepcopy(net)
        with kind(other, [find(other, layer)]) as theirs:
            wanted = theirs(x, None if targets is None else [ClassifierOutputTarget(target) for target in targets])
        ours = gradcam(net, x, targets, layer, plus_plus)
        assert ours.shape == (3, side, side + 8) and wanted.max() > 0.99
        np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_the_network_is_left_as_it_was():
    net = _net("resnet20").train()
    net.stages[0].eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)  # a frozen backbone can be asked as well
    before = {name: value.clone() for name, value in net.state_dict().items()}
    heat = gradcam(net, torch.randn(2, 3, 16, 16))
    assert heat.max() > 0.99
    assert net.training and not net.stages[0].training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_picture_does_not_see_its_neighbours():
    net, x = _net("resnet20"), torch.randn(3, 3, 16, 16)
    together = gradcam(net, x, [0, 1, 2])
    for index in range(3):
        assert torch.allclose(gradcam(net, x[index : index + 1], [index])[0], together[index], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "side", "layer"),
    [("resnet20", 32, "stages.2.2"), ("resnet20", 8, "stages.1.2"), ("resnet18", 128, "stages.3.1"), ("dense", 16, "norm")],
)
def test_the_last_map_is_found(name, side, layer):
    assert last_map(_net(name), torch.randn(1, 3, side, side)) == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vit_tiny_patch16_224", "blocks.11.norm1"),  # behind it only the class token reaches the scores
        ("mobilenetv2_050", "bn2"),
        ("convnext_atto", "stages.3"),
        ("densenet121", "features.norm5"),
    ],
)
def test_the_last_map_of_timms_networks_is_found(name, layer):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    size = {"img_size": 64} if name.startswith("vit") else {}
    net = timm.create_model(name, num_classes=4, **size).eval()
    found = last_map(net, torch.randn(1, 3, 64 if size else 128, 64 if size else 128))
    assert found == layer or found.startswith(layer + ".")
    heat = gradcam(net, torch.randn(1, 3, 64 if size else 128, 64 if size else 128))
    assert heat.isfinite().all() and heat.amin() == 0


def _pictured(name):
    """Whether a model of the catalogue gives a score for each class of a picture and keeps places apart."""
    info = dlzoo.model_info(name)
    others = (".audio.", ".mlp.", ".deeplab.", ".unet")
    return "num_classes" in info.arguments and not any(part in info.target for part in others)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("cbam_resnet20", "aa_resnet20", "vit_lite7", "lenet5") else pytest.param(name, marks=pytest.mark.slow)
        for name in filter(_pictured, dlzoo.list_models())
    ],
)
def test_every_model_of_the_catalogue_has_a_last_map(name):
    torch.manual_seed(0)
    arguments = dlzoo.model_info(name).arguments
    side = 32 if name.startswith(("lenet", "vit_lite")) else 64
    net = dlzoo.create_model(name, num_classes=3, **({"image_size": side} if arguments.get("image_size") else {})).eval()
    x = torch.randn(1, arguments.get("in_channels", 3), side, side)
    layer = last_map(net, x)
    assert isinstance(find(net, layer), nn.Module)
    heat = gradcam(net, x, layer=layer)
    assert heat.shape == (1, side, side) and heat.isfinite().all()


def test_what_can_not_be_done_is_said():
    net, x = _net("resnet20"), torch.randn(2, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"did you mean .*'stages\.2\.2'"):
        gradcam(net, x, layer="stages.2.3")
    with pytest.raises(ConfigError, match="no map"):
        gradcam(net, x, layer="head")
    with pytest.raises(ConfigError, match=r"pictures \(B, C, H, W\)"):
        gradcam(net, torch.randn(2, 1, 100))
    with pytest.raises(ConfigError, match="one score for each class"):
        gradcam(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)), x)
    with pytest.raises(ConfigError, match="no layer whose output is a map"):
        gradcam(dlzoo.create_model("mlp", num_classes=3, in_channels=3), torch.randn(1, 3, 28, 28))
    with pytest.raises(ValueError, match="one class for each of 2"):
        gradcam(net, x, [1])


# --- on a network that has learned something


def _rank_correlation(one, other):
    """Spearman's; equal values share the mean of their ranks. A map without any differences says nothing: 0."""
    ranks = []
    for heat in (one.flatten().contiguous(), other.flatten().contiguous()):
        order = heat.sort().values
        ranks.append((torch.searchsorted(order, heat) + torch.searchsorted(order, heat, right=True)).double())
    if min(rank.std() for rank in ranks) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def test_random_weights_change_the_map(shapes_net, drawn_shapes):
    """The sanity check of Adebayo et al. 2018, arXiv 1810.03292: what does not depend on the weights explains nothing."""
    images, labels, _ = drawn_shapes(32, seed=5)
    trained = gradcam(shapes_net, images, labels.tolist())
    again = gradcam(copy.deepcopy(shapes_net), images, labels.tolist())
    assert min(_rank_correlation(*pair) for pair in zip(trained, again, strict=True)) > 0.999
    for what in ("head", "whole"):
        found = []
        for seed in range(4):
            torch.manual_seed(seed)
            net = copy.deepcopy(shapes_net)
            for module in [net.head] if what == "head" else net.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            assert not torch.equal(net.head.weight, shapes_net.head.weight)
            random = gradcam(net, images, labels.tolist())
            found += [_rank_correlation(*pair) for pair in zip(trained, random, strict=True)]
        assert abs(np.mean(found)) < 0.35, (what, np.mean(found))


def test_the_pointing_game(shapes_net, drawn_shapes):
    """The hottest place lies on the object that is asked for, of two in the picture. Zhang et al. 2016, arXiv 1608.00507."""
    images, labels, boxes = drawn_shapes(100, seed=7, objects=2)
    for plus_plus in (False, True):
        hits = 0
        for which in (0, 1):
            heat = gradcam(shapes_net, images, labels[:, which].tolist(), plus_plus=plus_plus)
            places = heat.flatten(1).argmax(1)
            rows, columns = places // heat.shape[2], places % heat.shape[2]
            left, top, right, bottom = boxes[:, which].T
            hits += int(((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)).sum())
        area = float(((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).double().mean()) / images[0, 0].numel()
        assert area < 0.2  # chance
        assert hits >= 0.85 * 2 * len(images), hits
