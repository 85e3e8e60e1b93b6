"""A convolutional network with the habits of transformers, equal to torchvision's."""

import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import convnext
from dlzoo.models.vision.convnext import Block, ChannelNorm, ConvNeXt
from dlzoo.pretrained import convert


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_size_is_the_papers_and_torchvisions():
    with torch.device("meta"):
        assert count(convnext.convnext_tiny()) == 28_589_128
    assert torchvision.models.ConvNeXt_Tiny_Weights.DEFAULT.meta["num_params"] == 28_589_128


def test_shapes():
    net = ConvNeXt((1, 2, 1), (8, 12, 16), num_classes=5, in_channels=2)
    assert net.features(torch.randn(3, 2, 36, 50)).shape == (3, 16, 2, 3)
    assert net(torch.randn(3, 2, 36, 50)).shape == (3, 5)
    assert list(net.modules())[-1] is net.head


def test_a_block_changes_almost_nothing_at_first():
    torch.manual_seed(0)
    block, x = Block(8), torch.randn(2, 8, 9, 9)
    assert 0 < (block(x) - x).abs().max() < 1e-4
    with torch.no_grad():
        block.scale.zero_()
    assert torch.equal(block(x), x)


def test_a_norm_sees_the_channels_of_one_pixel():
    norm, x = ChannelNorm(6), torch.randn(2, 6, 4, 5)
    y = norm(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(norm(5 * x + 2), y, atol=1e-4, rtol=0)
    x[0, :, 0, 0] = torch.arange(6.0)
    assert torch.equal(norm(x)[:, :, 1:], y[:, :, 1:])


def test_depth_is_skipped_in_proportion():
    net = ConvNeXt((1, 2, 2), (4, 4, 4), stochastic_depth=0.4)
    rates = [module.skip.probability for module in net.modules() if isinstance(module, Block)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = ConvNeXt((1, 1, 1), (4, 8, 12), num_classes=5)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_exports_for_any_batch():
    torch.manual_seed(0)
    net = ConvNeXt((1, 1), (4, 8), num_classes=5).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvNeXt((1, 1), (4,)), r"one number above 0 a stage, got \(1, 1\) and \(4,\)"),
        (lambda: ConvNeXt((1, 0), (4, 4)), r"got \(1, 0\)"),
        (lambda: ConvNeXt((), ()), "one number above 0 a stage"),
        (lambda: convnext.convnext_tiny(num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: ConvNeXt((1, 1), (4, 4))(torch.zeros(1, 3, 8, 7)), "height and width must be at least 8, got 8 and 7"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- parity


def randomised(net: nn.Module) -> nn.Module:
    """Float64, norms, biases, scales and head at random: 1 and 0, or a scale of 1e-6, would hide a mix-up."""
    torch.manual_seed(0)
    net.double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("layer_scale"):
                parameter.uniform_(0.2, 0.6)
            elif parameter.ndim == 1:
                parameter.normal_(mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
            elif name.startswith("classifier"):
                parameter.normal_()
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return net


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max().item()
    assert scale > 0, what
    assert (ours - theirs).abs().max().item() <= 1e-5 * scale, what


@pytest.mark.parametrize("last", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_equals_torchvision(last):
    theirs = randomised(torchvision.models.convnext_tiny(num_classes=5, stochastic_depth_prob=0.0))
    ours = convnext.convnext_tiny(num_classes=5, stochastic_depth=0.0).double()
    ours.load_state_dict(convert("convnext_tiny", theirs.state_dict()))
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    results = []
    for net in (ours, theirs):
        leaf = (x.contiguous(memory_format=torch.channels_last) if last and net is ours else x.clone()).requires_grad_()
        out = net(leaf)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        results.append((out.detach(), leaf.grad))
    assert_near(results[0][0], results[1][0], "output")
    assert_near(results[0][1], results[1][1], "gradient of the image")
    gradients = convert("convnext_tiny", {key: parameter.grad for key, parameter in theirs.named_parameters()})
    own = dict(ours.named_parameters())
    assert set(own) == set(gradients)
    for key, parameter in own.items():
        assert_near(parameter.grad, gradients[key], f"gradient of {key}")
