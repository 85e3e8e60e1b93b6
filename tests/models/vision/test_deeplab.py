import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import deeplab, resnet
from dlzoo.models.vision.deeplab import ASPP, DeepLabV3
from dlzoo.models.vision.resnet import BasicBlock, Bottleneck, ResNet
from dlzoo.pretrained import convert

SIZES = {"deeplabv3_resnet18": 15_904_085, "deeplabv3_resnet50": 39_638_869, "deeplabv3_resnet101": 58_630_997}


def make(name: str, **options) -> DeepLabV3:
    return getattr(deeplab, name)(getattr(resnet, name.removeprefix("deeplabv3_")), **options)


def theirs(name: str, **options) -> nn.Module:
    return getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, **options)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def tiny(output_stride: int = 8) -> DeepLabV3:
    return DeepLabV3(ResNet(BasicBlock, (1, 1, 1, 1), 8), 3, output_stride, 8)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_torchvisions(name):
    with torch.device("meta"):
        assert count(make(name)) == SIZES[name]
        if name != "deeplabv3_resnet18":
            assert count(theirs(name, num_classes=21)) == SIZES[name]


def assert_near(ours: torch.Tensor, other: torch.Tensor, what: str) -> None:
    scale = other.abs().max().item()
    assert scale > 0, what
    assert (ours - other).abs().max().item() <= 1e-5 * scale, what


def tiny_pair() -> tuple[DeepLabV3, nn.Module]:
    """Ours and torchvision's over a shallow ResNet and with a narrow ASPP: as one, quickly."""
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import deeplabv3

    backbone = torchvision.models.resnet.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 2, 2], replace_stride_with_dilation=[False, True, True]
    )
    head = deeplabv3.DeepLabHead(8, 5)
    head[0] = deeplabv3.ASPP(2048, (12, 24, 36), 8)
    head[1], head[2], head[4] = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1)
    other = deeplabv3.DeepLabV3(IntermediateLayerGetter(backbone, {"layer4": "out"}), head)
    return DeepLabV3(ResNet(Bottleneck, (1, 1, 2, 2), 64), 5, 8, 8), other


@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deeplabv3_resnet50", "deeplabv3_resnet101"))]
)
def test_equals_torchvision(name):
    torch.manual_seed(0)
    if name == "tiny":
        ours, other = tiny_pair()
        name = "deeplabv3_resnet50"  # whose names the tensors have
    else:
        ours, other = make(name, num_classes=5), theirs(name, num_classes=5)
    ours, other = ours.double(), other.double()
    for module in other.modules():  # a bias of zero or a mean of 0 would hide a mix-up
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.3)
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two would draw different numbers
    for parameter in list(other.parameters())[-2:]:
        parameter.data.normal_()
    ours.dropout.p = 0.0
    ours.load_state_dict(convert(name, other.state_dict()))
    x = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    for mode in (False, True):
        results = []
        for net in (ours, other):
            net.train(mode).zero_grad()
            leaf = x.clone().requires_grad_()
            out = net(leaf)
            out = out if isinstance(out, torch.Tensor) else out["out"]
            (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
            results.append((out.detach(), leaf.grad))
        assert_near(results[0][0], results[1][0], f"output, train={mode}")
        assert_near(results[0][1], results[1][1], f"gradient of the image, train={mode}")
        gradients = other.state_dict() | {key: parameter.grad for key, parameter in other.named_parameters()}
        gradients = convert(name, gradients)
        for key, parameter in ours.named_parameters():
            assert_near(parameter.grad, gradients[key], f"gradient of {key}, train={mode}")
    after = convert(name, other.state_dict())
    for key, buffer in ours.named_buffers():
        assert_near(buffer, after[key], key)


def test_the_second_classifier_of_the_published_files_is_left_out():
    with torch.device("meta"):
        state = theirs("deeplabv3_resnet50", num_classes=21, aux_loss=True).state_dict()
        own = make("deeplabv3_resnet50").state_dict()
    assert any(key.startswith("aux_classifier.") for key in state)
    converted = convert("deeplabv3_resnet50", state)
    assert {key: tensor.shape for key, tensor in converted.items()} == {key: tensor.shape for key, tensor in own.items()}


@pytest.mark.parametrize(("block", "stage"), [(BasicBlock, 2), (Bottleneck, 2), (Bottleneck, 3)])
def test_dilation_sees_what_the_stride_saw(block, stage):
    """Every place of the strided map is a place of the dilated one: the same weights, the same values, more of them."""
    torch.manual_seed(0)
    plain = ResNet(block, (1, 1, 2, 2), 4).eval()
    dilated = ResNet(block, (1, 1, 2, 2), 4).eval()
    dilated.load_state_dict(plain.state_dict())
    kept = DeepLabV3(dilated, 3, output_stride=8, channels=4).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        coarse, fine = plain.stages[: stage + 1](plain.stem(x)), kept.stages[: stage + 1](kept.stem(x))
    step = 2 ** (stage - 1)
    assert fine.shape[2] == 8 and coarse.shape[2] * step == 8
    torch.testing.assert_close(fine[..., ::step, ::step], coarse)
    assert (fine[..., 1::step, ::step] - coarse).abs().max() > 0.01


@pytest.mark.parametrize(("output_stride", "features", "rates"), [(8, (6, 8), [12, 24, 36]), (16, (3, 4), [6, 12, 18])])
def test_output_stride_and_the_papers_rates(output_stride, features, rates):
    net = tiny(output_stride).eval()
    x = torch.randn(2, 3, 45, 61)
    assert net.stages(net.stem(x)).shape[2:] == features
    assert net(x).shape == (2, 3, 45, 61)
    assert [branch[0].dilation[0] for branch in net.aspp.branches] == [1, *rates]


def test_aspp_branches_see_as_far_as_their_rate_and_the_average_sees_all():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 41, 41, requires_grad=True)
    aspp = ASPP(4, 6, (2, 5)).eval()
    for branch, reach in zip(aspp.branches, (0, 2, 5), strict=True):
        (gradient,) = torch.autograd.grad(branch(x)[0, :, 20, 20].sum(), x)
        seen = gradient.abs().sum((0, 1)).nonzero()
        assert set(seen.flatten().tolist()) <= {20 - reach, 20, 20 + reach} and len(seen) > 0
    (gradient,) = torch.autograd.grad(aspp(x)[0, :, 20, 20].sum(), x)
    assert (gradient.abs().sum(1) > 0).all()


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = tiny()
    net(torch.randn(4, 3, 64, 64)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_exports_for_any_batch():
    torch.manual_seed(0)
    net = tiny().eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 32, 40),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 32, 40)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 32}, "output_stride must be 8 or 16, got 32"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        DeepLabV3(ResNet(BasicBlock, (1, 1, 1, 1), 4), **options)
