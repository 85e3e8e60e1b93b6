import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlzoo.models.vision import unet
from dlzoo.models.vision.unet import UNet


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def papers_parameters(width: int, depth: int, channels: int, classes: int) -> int:
    """From figure 1: two 3x3 convolutions a step, 2x2 up-convolutions, a 1x1 convolution at the end; all with biases."""
    total, inside = 0, channels
    for i in range(depth + 1):
        out = width * 2**i
        total += 9 * inside * out + out + 9 * out * out + out
        inside = out
    for i in reversed(range(depth)):
        out = width * 2**i
        total += 4 * 2 * out * out + out  # up
        total += 9 * 2 * out * out + out + 9 * out * out + out
    return total + width * classes + classes


@pytest.mark.parametrize(("width", "depth", "channels", "classes"), [(64, 4, 1, 2), (8, 2, 3, 5)])
def test_size_is_that_of_the_papers_figure(width, depth, channels, classes):
    with torch.device("meta"):
        net = UNet(classes, channels, width, depth, norm=False)
    assert count(net) == papers_parameters(width, depth, channels, classes)


def test_named_size():
    with torch.device("meta"):
        assert count(unet.unet_seg()) == 31_036_546
        assert count(unet.unet_seg(norm=False)) == 31_030_658
    layers = [module for module in unet.unet_seg(width=2).modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23  # "In total the network has 23 convolutional layers", section 2


def unpadded(net: UNet, x: torch.Tensor) -> torch.Tensor:
    """The paper's own form for one step down: no padding, and the map from the way down cropped to fit."""

    def twice(x, convs):
        for conv in convs:
            if isinstance(conv, nn.Conv2d):
                x = F.relu(F.conv2d(x, conv.weight, conv.bias))
        return x

    beside = twice(x, net.stem)
    x = net.up[0].grow(twice(F.max_pool2d(beside, 2), net.down[0][1]))
    edge = (beside.shape[2] - x.shape[2]) // 2
    return net.head(twice(torch.cat((beside[..., edge:-edge, edge:-edge], x), 1), net.up[0].convs))


def test_the_middle_is_what_the_papers_unpadded_network_gives():
    torch.manual_seed(0)
    net = UNet(3, 2, width=4, depth=1, norm=False).double()
    x = torch.randn(2, 2, 32, 40, dtype=torch.float64)
    expected = unpadded(net, x)
    edge = (32 - expected.shape[2]) // 2
    assert edge == 8
    assert expected.abs().max() > 0
    torch.testing.assert_close(net(x)[..., edge:-edge, edge:-edge], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (45, 61), (16, 16)])
def test_the_answer_is_as_large_as_the_image(size):
    assert UNet(3, 1, width=2, depth=4).eval()(torch.randn(2, 1, *size)).shape == (2, 3, *size)


def test_shifted_by_whole_steps_it_answers_shifted():
    """What a fully convolutional network promises; shifts by less than the deepest stride are not promised."""
    torch.manual_seed(0)
    net = UNet(2, 1, width=4, depth=2).double().eval()
    x = torch.zeros(1, 1, 96, 96, dtype=torch.float64)
    x[..., 36:60, 36:60] = torch.randn(24, 24, dtype=torch.float64)
    ours, shifted = net(x), net(x.roll(4, 3))
    torch.testing.assert_close(shifted[..., 30:70, 34:70], ours[..., 30:70, 30:66], rtol=1e-9, atol=1e-9)


def test_every_parameter_learns():
    torch.manual_seed(0)
    for norm in (True, False):
        net = UNet(3, 1, width=4, depth=2, norm=norm)
        net(torch.randn(2, 1, 24, 24)).square().sum().backward()
        bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
        assert bad == []


def test_exports_for_any_batch():
    torch.manual_seed(0)
    net = UNet(3, 1, width=4, depth=2).eval()
    exported = torch.export.export(net, (torch.randn(2, 1, 20, 26),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 1, 20, 26)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNet(width=0), "width must be at least 1, got 0"),
        (lambda: UNet(depth=0), "depth must be at least 1, got 0"),
        (lambda: UNet(num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: UNet(width=2)(torch.zeros(1, 1, 15, 32)), r"at least 16 high and wide, got \(15, 32\)"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
