import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import vgg
from dlzoo.models.vision.vgg import VGG
from dlzoo.pretrained import convert

DEPTHS = (11, 13, 16, 19)
NAMES = [f"vgg{depth}{norm}" for depth in DEPTHS for norm in ("", "_bn")]
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # table 1


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(make, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(**arguments)


def tiny(**arguments) -> VGG:
    torch.manual_seed(0)
    return VGG(**{"convolutions": (1, 2), "num_classes": 3, "width": 4, "hidden": 8, "dropout": 0.0} | arguments)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_torchvisions_and_the_papers(name):
    net, depth = on_meta(getattr(vgg, name)), int(name.removeprefix("vgg").removesuffix("_bn"))
    assert count(net) == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert f"{count(net):,} parameters" in getattr(vgg, name).__doc__
    assert round(count(net) / 1e6) == {11: 133, 13: 133, 16: 138, 19: 144}[depth]  # table 2
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules()) == depth
    stages = "".join("c" if isinstance(layer, nn.Conv2d) else "p" * isinstance(layer, nn.MaxPool2d) for layer in net.layers)
    assert tuple(len(stage) for stage in stages.split("p")[:-1]) == CONVOLUTIONS[depth]


def test_cifar_form_is_vgg16_with_another_end():
    net, large = on_meta(vgg.vgg16_bn_cifar), on_meta(vgg.vgg16_bn)
    assert count(net) == count(large.layers) + 512 * 10 + 10
    assert f"{count(net):,} parameters" in vgg.vgg16_bn_cifar.__doc__
    assert net(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(("side", "features"), [(224, 7), (64, 2), (33, 1)])
def test_shapes(side, features):
    net = on_meta(vgg.vgg11, num_classes=7, in_channels=2)
    x = torch.empty(2, 2, side, side, device="meta")
    assert net.features(x).shape == (2, 512, features, features)
    assert net(x).shape == (2, 7)


def test_two_convolutions_see_five_pixels():
    """The reason for 3x3: the receptive field of n of them is 2 n + 1."""
    net = VGG((2,), num_classes=1, in_channels=1, width=2, hidden=0)
    x = torch.zeros(1, 1, 9, 9).requires_grad_()
    for layer in net.layers[:-1]:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    net.layers[:-1](x + 1)[0, 0, 4, 4].backward()
    assert x.grad.nonzero().amin(0).tolist()[2:] == [2, 2] and x.grad.nonzero().amax(0).tolist()[2:] == [6, 6]


@pytest.mark.parametrize("norm", [False, True])
def test_every_parameter_learns(norm):
    net = tiny(norm=norm)
    net(torch.randn(8, 3, 28, 28)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if not p.grad.any() or not p.grad.isfinite().all()]
    assert [key for key in bad if not (norm and key.endswith("bias"))] == []  # a norm takes out the bias before it


def test_dropout_is_of_training_alone():
    net, x = tiny(dropout=0.5), torch.randn(2, 3, 28, 28)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("side", [28, 12])
def test_exports_for_any_batch(side):
    net = tiny(norm=True).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(net, (torch.randn(2, 3, side, side),), dynamic_shapes=shapes).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, side, side)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convolutions": ()}, "convolutions must name at least one stage, each of at least 1"),
        ({"convolutions": (1, 0)}, r"each of at least 1, got \(1, 0\)"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"hidden": -1}, "hidden must be at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def narrow(theirs: nn.Module, inputs: int, hidden: int) -> nn.Module:
    """torchvision's with narrow hidden layers: the wide ones take a gigabyte in float64 and are 4096 times the same."""
    theirs.classifier[0] = nn.Linear(inputs, hidden)
    theirs.classifier[3] = nn.Linear(hidden, hidden)
    theirs.classifier[6] = nn.Linear(hidden, 5)
    for layer in (theirs.classifier[2], theirs.classifier[5]):
        layer.p = 0.3
    return theirs


@pytest.mark.parametrize(
    "name", ["vgg11_bn", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "vgg11_bn")]
)
def test_equals_torchvision(name, assert_parity):
    """Dropout as well: both draw the same masks from the same generator."""
    theirs = narrow(getattr(torchvision.models, name)(num_classes=5, init_weights=False), 512 * 49, 16)
    ours = VGG(CONVOLUTIONS[int(name[3:5])], name.endswith("_bn"), 5, hidden=16, dropout=0.3)
    assert_parity(name, ours, theirs, torch.randn(4, 3, 32, 32, dtype=torch.float64))


@pytest.mark.slow
def test_wide_layers_equal_torchvisions():
    """At the published width, in float32, forwards alone: 224 pixels, and a smaller image whose map is stretched."""
    torch.manual_seed(0)
    theirs = torchvision.models.vgg11().eval()
    ours = vgg.vgg11().eval()
    ours.load_state_dict(convert("vgg11", theirs.state_dict(), ours.state_dict()))
    for side in (224, 96):
        x = torch.randn(2, 3, side, side)
        with torch.inference_mode():
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_cifar_form_equals_torchvisions_layers():
    theirs = torchvision.models.vgg11_bn(init_weights=False).features.eval()
    ours = VGG(CONVOLUTIONS[11], True, 5, hidden=0).eval()
    ours.layers.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), ours.head(theirs(x).flatten(1)))
