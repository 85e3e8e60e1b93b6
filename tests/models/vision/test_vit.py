"""A picture as a sequence of patches, equal to timm's and torchvision's."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import vit
from dlzoo.models.vision.vit import ViT, ViTSize
from dlzoo.pretrained import convert

SIZES = {"vit_tiny": 5_717_416, "vit_small": 22_050_664, "vit_base": 86_567_656}
TINY = ViTSize(12, 2, 3)
PUBLISHED = ["vit_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit_small", "vit_base"))]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_timms(name):
    with torch.device("meta"):
        ours, theirs = getattr(vit, name)(), timm.create_model(f"{name}_patch16_224")
    assert count(ours) == count(theirs) == SIZES[name]


def test_vit_lite_is_the_authors_but_for_three_biases():
    with torch.device("meta"):
        net = vit.vit_lite7()
    assert count(net) == 3_722_250
    assert f"{(count(net) - 7 * 3 * 256 - 256) / 1e6:.3f}" == "3.717" or f"{(count(net) - 7 * 3 * 256) / 1e6:.3f}" == "3.717"


def test_shapes_and_patches():
    net = ViT(TINY, image_size=24, patch_size=8, num_classes=5, in_channels=2)
    assert net(torch.randn(3, 2, 24, 24)).shape == (3, 5)
    assert net.features(torch.randn(3, 2, 24, 24)).shape == (3, 1 + 9, 12)
    assert net.features(torch.randn(3, 2, 16, 40)).shape == (3, 1 + 10, 12)  # places between the learned ones
    assert list(net.modules())[-1] is net.head


def test_without_places_the_order_of_the_patches_is_nothing():
    """What the network knows of where a patch stood is in `places` alone."""
    torch.manual_seed(0)
    net = ViT(TINY, image_size=16, patch_size=4, num_classes=5).eval()
    x = torch.randn(1, 3, 16, 16)
    rows = x.unflatten(2, (4, 4))[:, :, torch.tensor([2, 0, 3, 1])].flatten(2, 3)  # rows of patches exchanged
    assert not torch.allclose(net(rows), net(x), atol=1e-5)
    with torch.no_grad():
        net.places.zero_()
    torch.testing.assert_close(net(rows), net(x), atol=1e-5, rtol=1e-5)


def test_places_of_another_grid_are_between_the_learned_ones():
    net = ViT(TINY, image_size=16, patch_size=4)
    with torch.no_grad():  # a slope from left to right stays one
        net.places[:, 1:] = torch.linspace(0, 1, 4).repeat(4)[None, :, None]
    wide = net._places(4, 8)[0, 1:, 0].view(4, 8)
    assert torch.equal(net._places(4, 8)[:, 0], net.places[:, 0])
    assert (wide.diff(dim=1) >= -1e-6).all() and (wide - wide[:1]).abs().max() < 1e-6
    assert net._places(4, 4) is net.places


def test_depth_is_skipped_in_proportion():
    net = ViT(ViTSize(12, 4, 3), 16, 4, stochastic_depth=0.3)
    assert [block.skip.probability for block in net.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = ViT(TINY, image_size=16, patch_size=4, num_classes=5)
    net(torch.randn(2, 3, 16, 16)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_the_largest_part_of_a_start_is_the_head_and_the_places():
    torch.manual_seed(0)
    net = vit.vit_lite7()
    for tensor in (net.head.weight, net.places, net.blocks[3].attention.qkv.weight):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.1)
    assert net.head.bias.abs().max() == 0


def test_exports_for_any_batch():
    torch.manual_seed(0)
    net = ViT(TINY, image_size=16, patch_size=4, num_classes=5).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ViT(TINY, image_size=30, patch_size=4), "image_size must be a multiple of patch_size, 4, got 30"),
        (lambda: ViT(ViTSize(10, 2, 3), 16, 4), "width must be a multiple of heads, 3, got 10"),
        (lambda: ViT(ViTSize(12, 0, 3), 16, 4), "depth must be at least 1, got 0"),
        (lambda: vit.vit_tiny(num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: ViT(TINY, 16, 4)(torch.zeros(1, 3, 16, 18)), "multiples of the patch, 4, got 16 and 18"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- parity


def randomised(net: nn.Module) -> nn.Module:
    """Float64, every tensor at random: norms of 1 and 0 and biases of 0 would hide a mix-up."""
    torch.manual_seed(0)
    net.double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
            elif "head" in name:
                parameter.normal_()
            else:
                parameter.normal_(std=0.1)
    return net


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max().item()
    assert scale > 0, what
    assert (ours - theirs).abs().max().item() <= 1e-5 * scale, what


def assert_same_function(ours: nn.Module, theirs: nn.Module, name: str, x: torch.Tensor) -> None:
    """Outputs and all gradients agree."""
    ours.load_state_dict(convert(name, theirs.state_dict()))
    results = []
    for net in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = net(leaf)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        results.append((out.detach(), leaf.grad))
    assert_near(results[0][0], results[1][0], "output")
    assert_near(results[0][1], results[1][1], "gradient of the image")
    gradients = convert(name, {key: parameter.grad for key, parameter in theirs.named_parameters()})
    own = dict(ours.named_parameters())
    assert set(own) == set(gradients)
    for key, parameter in own.items():
        assert_near(parameter.grad, gradients[key], f"gradient of {key}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_timm(name):
    theirs = randomised(timm.create_model(f"{name}_patch16_224", num_classes=5, img_size=32))
    ours = getattr(vit, name)(num_classes=5, image_size=32).double()
    assert_same_function(ours, theirs, name, torch.randn(2, 3, 32, 32, dtype=torch.float64))


def test_equals_timm_at_another_size_than_the_places_were_learned_for():
    arguments = {"num_classes": 5, "img_size": 32, "dynamic_img_size": True}
    theirs = randomised(timm.create_model("vit_tiny_patch16_224", **arguments)).eval()
    ours = vit.vit_tiny(num_classes=5, image_size=32).double().eval()
    ours.load_state_dict(convert("vit_tiny", theirs.state_dict()))
    x = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    with torch.no_grad():
        assert_near(ours(x), theirs(x), "output")


@pytest.mark.slow
def test_equals_torchvision():
    theirs = randomised(torchvision.models.vit_b_16(num_classes=5, image_size=32))
    ours = vit.vit_base(num_classes=5, image_size=32).double()
    assert_same_function(ours, theirs, "vit_base", torch.randn(2, 3, 32, 32, dtype=torch.float64))
