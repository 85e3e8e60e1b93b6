import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import mobilenet
from dlzoo.models.vision.mobilenet import InvertedResidual, MobileNetV2
from dlzoo.nn.depthwise import DepthwiseConv2d

WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)  # the paper's


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(make, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(**arguments)


@pytest.mark.parametrize("width", WIDTHS)
def test_sizes_are_torchvisions(width):
    theirs = on_meta(torchvision.models.mobilenet_v2, width_mult=width)
    assert count(on_meta(mobilenet.mobilenet_v2, width=width)) == count(theirs)


def test_counts_of_the_docstrings_and_the_paper():
    assert count(on_meta(mobilenet.mobilenet_v2)) == 3_504_872 == pytest.approx(3.4e6, rel=0.04)
    assert "3,504,872 parameters" in mobilenet.mobilenet_v2.__doc__
    assert f"{count(on_meta(mobilenet.mobilenet_v2_cifar)):,} parameters" in mobilenet.mobilenet_v2_cifar.__doc__
    assert round(count(on_meta(mobilenet.mobilenet_v2, width=1.4)) / 1e6, 1) == 6.1


def test_it_is_table_2():
    """Channels, blocks and the side of each row's output at 224 pixels."""
    net, x = on_meta(mobilenet.mobilenet_v2), torch.empty(1, 3, 224, 224, device="meta")
    x = net.stem(x)
    assert x.shape == (1, 32, 112, 112)
    rows = [(16, 1, 112), (24, 2, 56), (32, 3, 28), (64, 4, 14), (96, 3, 14), (160, 3, 7), (320, 1, 7)]
    for stage, (channels, blocks, side) in zip(net.stages, rows, strict=True):
        x = stage(x)
        assert len(stage) == blocks and x.shape == (1, channels, side, side)
    assert net.last(x).shape == (1, 1280, 7, 7)


def test_cifar_form_is_the_same_network_without_two_halvings():
    net, large = on_meta(mobilenet.mobilenet_v2_cifar), on_meta(mobilenet.mobilenet_v2, num_classes=10)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in large.state_dict().items()}
    x = torch.empty(2, 3, 32, 32, device="meta")
    assert (net.features(x).shape, large.features(x).shape) == ((2, 1280, 4, 4), (2, 1280, 1, 1))
    assert net(x).shape == (2, 10)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (11.2, 16), (12, 16), (22.4, 24), (33.6, 32), (44.8, 48), (1792, 1792)]
)
def test_channels_are_multiples_of_8_and_lose_less_than_a_tenth(channels, rounded):
    assert mobilenet._round8(channels) == rounded >= min(8, 0.9 * channels)


@pytest.mark.parametrize("expansion", [1, 6])
def test_a_block_without_its_branch_is_its_shortcut(expansion):
    block = InvertedResidual(4, 4, 1, expansion).eval()
    assert sum(isinstance(module, DepthwiseConv2d) for module in block.modules()) == 1
    nn.init.zeros_(block.project[1].weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("out_channels", "stride", "shape"), [(6, 1, (5, 9)), (4, 2, (3, 5))])
def test_a_block_that_changes_the_shape_has_no_shortcut(out_channels, stride, shape):
    block = InvertedResidual(4, out_channels, stride).eval()
    nn.init.zeros_(block.project[1].weight)
    y = block(torch.randn(2, 4, 5, 9))
    assert y.shape == (2, out_channels, *shape) and not y.any()


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = MobileNetV2(0.35, 3, 2, "small", dropout=0.0)
    net(torch.randn(4, 2, 16, 16)).square().sum().backward()
    assert [key for key, p in net.named_parameters() if not p.grad.any() or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.0}, "width must be above 0, got 0.0"),
        ({"num_classes": 0}, "num_classes and in_channels must be at least 1, got 0 and 3"),
        ({"in_channels": 0}, "num_classes and in_channels must be at least 1, got 1000 and 0"),
        ({"stem": "tiny"}, "stem must be 'small' or 'large', got 'tiny'"),
        ({"stages": ()}, "stages must name at least one row"),
        ({"stages": ((6, 8, 0, 1),)}, r"from 1 on, got \(\(6, 8, 0, 1\),\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        MobileNetV2(**arguments)


@pytest.mark.parametrize("width", [0.35, *(pytest.param(width, marks=pytest.mark.slow) for width in WIDTHS[1:])])
def test_equals_torchvision(width, assert_parity):
    theirs = torchvision.models.mobilenet_v2(num_classes=5, width_mult=width, dropout=0.0)
    ours = mobilenet.mobilenet_v2(width, num_classes=5, dropout=0.0)
    assert_parity("mobilenet_v2", ours, theirs, torch.randn(4, 3, 48, 48, dtype=torch.float64))


def test_cifar_form_equals_torchvisions_with_other_strides(assert_parity):
    theirs = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.35, dropout=0.0)
    theirs.features[0][0].stride = theirs.features[2].conv[1][0].stride = (1, 1)
    theirs.features[2].use_res_connect = True  # at this width, that block now keeps the shape
    ours = mobilenet.mobilenet_v2_cifar(0.35, num_classes=5, dropout=0.0)
    assert_parity("mobilenet_v2", ours, theirs, torch.randn(3, 3, 16, 16, dtype=torch.float64))
