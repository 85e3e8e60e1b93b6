import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import resnet
from dlzoo.models.vision.resnet import BasicBlock, Bottleneck, ResNet, ZeroPadShortcut
from dlzoo.pretrained import convert

CIFAR = {  # the paper gives millions (table 6), to as many digits as stand here; the exact count follows from its section 4.2
    "resnet20": (269_722, "0.27"),
    "resnet32": (464_154, "0.46"),
    "resnet44": (658_586, "0.66"),
    "resnet56": (853_018, "0.85"),
    "resnet110": (1_727_962, "1.7"),
}
IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(make, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(**arguments)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_sizes_are_the_papers(name):
    exact, millions = CIFAR[name]
    net = on_meta(getattr(resnet, name))
    assert count(net) == exact
    assert f"{exact / 1e6:.{len(millions) - 2}f}" == millions
    # the layers that have weights are what the name counts; option A adds none
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules()) == int(name.removeprefix("resnet"))


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_sizes_are_torchvisions(name):
    theirs = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert count(on_meta(getattr(resnet, name))) == theirs


def test_cifar_variant_differs_from_resnet18_by_its_stem_and_head():
    stem, head = 64 * 3 * (7 * 7 - 3 * 3), 512 * 990 + 990
    assert count(on_meta(resnet.resnet18)) - count(on_meta(resnet.resnet18_cifar)) == stem + head


@pytest.mark.parametrize(("shortcut", "extra"), [("pad", 0), ("none", 0), ("project", 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64)])
def test_projections_cost_what_they_should(shortcut, extra):
    assert count(on_meta(resnet.resnet20, shortcut=shortcut)) == 269_722 + extra


@pytest.mark.parametrize(
    ("name", "side", "features"),
    [
        ("resnet20", 32, (64, 8, 8)),
        ("resnet18_cifar", 24, (512, 3, 3)),
        ("resnet18", 65, (512, 3, 3)),
        ("resnet50", 64, (2048, 2, 2)),
    ],
)
def test_shapes(name, side, features):
    net = on_meta(getattr(resnet, name), num_classes=7, in_channels=2)
    x = torch.empty(3, 2, side, side, device="meta")
    assert net.features(x).shape == (3, *features)
    assert net(x).shape == (3, 7)
    assert isinstance(net.head, nn.Linear) and list(net.modules())[-1] is net.head and net.head.out_features == 7


@pytest.mark.parametrize(("stride", "shape"), [(1, (5, 9)), (2, (3, 5))])
@pytest.mark.parametrize(("block", "channels"), [(BasicBlock, 7), (Bottleneck, 28)])
@pytest.mark.parametrize("shortcut", ["pad", "project", "none"])
def test_block_shape_rounds_up(block, channels, stride, shape, shortcut):
    assert block(3, 7, stride, shortcut)(torch.randn(2, 3, 5, 9)).shape == (2, channels, *shape)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shortcut", ["pad", "project"])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_block_without_correction_is_relu_of_its_shortcut(block, shortcut, stride):
    module = block(8, 8 // block.expansion, stride, shortcut).eval()
    nn.init.zeros_((module.norm2 if block is BasicBlock else module.norm3).weight)
    x = torch.randn(2, 8, 5, 5)
    expected = torch.relu(module.shortcut(x))
    assert expected.any()
    assert torch.equal(module(x), expected)
    if stride == 1:
        assert torch.equal(expected, torch.relu(x))  # nothing changes the shape: the shortcut is the identity


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_plain_block_has_nothing_but_its_correction(block, stride):
    module = block(8, 8 // block.expansion, stride, "none").eval()
    norm = module.norm2 if block is BasicBlock else module.norm3
    x = torch.randn(2, 8, 5, 5)
    before = module(x)
    assert before.any()
    norm.weight.data.neg_()
    assert torch.allclose(before * module(x), torch.zeros(()))  # relu(f) and relu(-f) never overlap
    nn.init.zeros_(norm.weight)
    assert not module(x).any()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(16, 32), (3, 3), (2, 7)])
def test_option_a_is_every_other_pixel_between_zeros(in_channels, out_channels, stride):
    x = np.random.default_rng(0).normal(size=(2, in_channels, 5, 8)).astype(np.float32)
    before = (out_channels - in_channels) // 2
    expected = np.zeros((2, out_channels, -(-5 // stride), -(-8 // stride)), np.float32)
    for row in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            expected[:, before : before + in_channels, row, column] = x[:, :, stride * row, stride * column]
    shortcut = ZeroPadShortcut(in_channels, out_channels, stride)
    assert np.array_equal(shortcut(torch.from_numpy(x)).numpy(), expected)
    assert not list(shortcut.state_dict())


def test_option_a_keeps_channels_last_in_both_directions():
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    seen = []
    y = ZeroPadShortcut(4, 8, 2)(x * 1)
    y.grad_fn.next_functions[0][0].register_hook(lambda inputs, outputs: seen.append(inputs[0]))
    y.backward(torch.ones_like(y))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", [*CIFAR, "resnet18_cifar", *IMAGENET])
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    net = getattr(resnet, name)(num_classes=3)
    net(torch.randn(2, 3, 64 if name in IMAGENET else 16, 64 if name in IMAGENET else 16)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_convolutions_start_as_he_et_al_say():
    torch.manual_seed(0)
    net = resnet.resnet50()
    for conv in (net.stem[0], net.stages[2][1].conv2, net.stages[3][0].shortcut[0]):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        assert abs(conv.weight.mean().item()) < 0.03 * (2 / fan_out) ** 0.5


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stem", ["small", "large"])
def test_exports_for_any_batch(block, stem):
    torch.manual_seed(0)
    net = ResNet(block, (1, 1), 4, 3, stem=stem, shortcut="pad" if stem == "small" else "project").eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize("make", [resnet.resnet20, resnet.resnet18_cifar])
def test_channels_last_and_bf16_compute_the_same(make):
    torch.manual_seed(0)
    net = make().eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = net(x)
        last = copy.deepcopy(net).to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        with torch.autocast("cpu", torch.bfloat16):
            rounded = last(x).float()
    assert (rounded - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ResNet(BasicBlock, ()), "blocks_per_stage must name at least one stage, each of at least 1 block"),
        (lambda: ResNet(BasicBlock, (2, 0)), r"at least 1 block, got \(2, 0\)"),
        (lambda: ResNet(BasicBlock, (1,), width=0), "width must be at least 1, got 0"),
        (lambda: resnet.resnet20(num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: resnet.resnet20(in_channels=-1), "in_channels must be at least 1, got -1"),
        (lambda: resnet.resnet20(shortcut="A"), "shortcut must be 'pad', 'project' or 'none', got 'A'"),
        (lambda: ResNet(BasicBlock, (1,), stem="tiny"), "stem must be 'small' or 'large', got 'tiny'"),
        (lambda: ZeroPadShortcut(8, 4), "out_channels must be at least in_channels, 8, got 4"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def randomised(net: nn.Module) -> nn.Module:
    """Float64, with every norm and the head at random: a zero bias or a mean of 0 would hide a mix-up."""
    torch.manual_seed(0)
    net.double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.3)
    for parameter in list(net.parameters())[-2:]:
        parameter.data.normal_()
    return net


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    scale = theirs.abs().max().item()
    assert scale > 0, what
    assert (ours - theirs).abs().max().item() <= 1e-5 * scale, what


def assert_same_function(ours: nn.Module, theirs: nn.Module, rename, x: torch.Tensor) -> None:
    """Outputs and all gradients agree, in evaluation and in training; then also the running statistics.

    `rename` puts a state dict of theirs under our names; gradients are renamed in the same way.
    """
    for mode in (False, True):
        results = []
        for net in (ours, theirs):
            net.train(mode).zero_grad()
            leaf = x.clone().requires_grad_()
            out = net(leaf)
            weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
            (out * weights).sum().backward()
            results.append((out.detach(), leaf.grad))
        assert_near(results[0][0], results[1][0], f"output, train={mode}")
        assert_near(results[0][1], results[1][1], f"gradient of the image, train={mode}")
        gradients = {key: value.clone() for key, value in theirs.state_dict().items()}
        gradients |= {key: parameter.grad for key, parameter in theirs.named_parameters()}
        gradients = rename(gradients)
        for key, parameter in ours.named_parameters():
            assert_near(parameter.grad, gradients[key], f"gradient of {key}, train={mode}")
    after = rename(theirs.state_dict())
    for key, buffer in ours.named_buffers():
        assert_near(buffer, after[key], key)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("resnet101", "resnet152"))) for name in IMAGENET]
)
def test_equals_torchvision(name):
    theirs = randomised(getattr(torchvision.models, name)(num_classes=5))
    ours = getattr(resnet, name)(num_classes=5).double()
    ours.load_state_dict(convert(name, theirs.state_dict()))
    assert_same_function(ours, theirs, lambda state: convert(name, state), torch.randn(2, 3, 64, 64, dtype=torch.float64))


def test_cifar_variant_equals_torchvision_with_another_stem():
    theirs = torchvision.models.resnet18(num_classes=5)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    randomised(theirs)

    def rename(state):  # convert checks for the 7x7 stem
        stem = state["conv1.weight"]
        return convert("resnet18", state | {"conv1.weight": stem.new_zeros(64, 3, 7, 7)}) | {"stem.0.weight": stem}

    ours = resnet.resnet18_cifar(num_classes=5).double()
    ours.load_state_dict(rename(theirs.state_dict()))
    assert_same_function(ours, theirs, rename, torch.randn(2, 3, 16, 16, dtype=torch.float64))


def test_equals_timm():
    timm = pytest.importorskip("timm", reason="timm is not installed: no second opinion on resnet50")
    theirs = randomised(timm.create_model("resnet50", num_classes=5)).eval()
    ours = resnet.resnet50(num_classes=5).double().eval()
    ours.load_state_dict(convert("resnet50", theirs.state_dict()))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert_near(ours(x), theirs(x), "output")


class PublishedBlock(nn.Module):
    """The block of the published CIFAR checkpoints, written from their description: option A by slice and pad."""

    def __init__(self, channels: int, planes: int) -> None:
        super().__init__()
        stride = planes // channels
        self.conv1, self.bn1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        margins = (0, 0, 0, 0, planes // 4, planes // 4)
        self.skip = (lambda x: x) if stride == 1 else (lambda x: nn.functional.pad(x[..., ::2, ::2], margins))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.skip(x))


class Published(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(PublishedBlock(16, 16) for _ in range(blocks)))
        self.layer2 = nn.Sequential(*(PublishedBlock(32 if i else 16, 32) for i in range(blocks)))
        self.layer3 = nn.Sequential(*(PublishedBlock(64 if i else 32, 64) for i in range(blocks)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(nn.functional.avg_pool2d(x, x.shape[-1]).flatten(1))


@pytest.mark.parametrize("name", CIFAR)
def test_equals_the_published_cifar_networks(name):
    theirs = randomised(Published((int(name.removeprefix("resnet")) - 2) // 6))
    ours = getattr(resnet, name)().double()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))  # by order alone
    assert_same_function(ours, theirs, lambda state: convert(name, state), torch.randn(2, 3, 16, 16, dtype=torch.float64))
