import math

import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import efficientnet
from dlzoo.models.vision.efficientnet import B0, COEFFICIENTS, EfficientNet, FusedMBConv, MBConv, Stage, compound, scaled
from dlzoo.pretrained import convert

NAMES = [*(f"efficientnet_b{n}" for n in range(8)), *(f"efficientnet_v2_{size}" for size in "sml")]
BIG = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:]]


def on_meta(make, *words, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(*words, **arguments)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# --- what the papers say


@pytest.mark.parametrize(
    ("name", "millions"),
    list(zip(NAMES, (5.3, 7.8, 9.2, 12, 19, 30, 43, 66, 22, 54, 120), strict=True)),
)
def test_parameters_are_those_of_the_papers_and_of_torchvision(name, millions):
    found = count(on_meta(getattr(efficientnet, name)))
    assert found / 1e6 == pytest.approx(millions, rel=0.03)
    assert found == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert f"{found:,} parameters" in getattr(efficientnet, name).__doc__


def test_cifar_variant_is_b0_without_the_first_halving():
    net, b0 = on_meta(efficientnet.efficientnet_b0_cifar), on_meta(efficientnet.efficientnet_b0, num_classes=10)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in b0.state_dict().items()}
    assert f"{count(net):,} parameters" in efficientnet.efficientnet_b0_cifar.__doc__
    x = torch.empty(2, 3, 32, 32, device="meta")
    assert (net.features(x).shape, b0.features(x).shape) == ((2, 1280, 2, 2), (2, 1280, 1, 1))


def test_b0_is_table_1():
    """Channels and layers of each row, and the side of its output at 224 pixels."""
    net, x = on_meta(efficientnet.efficientnet_b0), torch.empty(1, 3, 224, 224, device="meta")
    x = net.stem(x)
    assert x.shape == (1, 32, 112, 112)
    rows = [(16, 1, 112), (24, 2, 56), (40, 2, 28), (80, 3, 14), (112, 3, 14), (192, 4, 7), (320, 1, 7)]
    for stage, (channels, blocks, side) in zip(net.stages, rows, strict=True):
        x = stage(x)
        assert len(stage) == blocks and x.shape == (1, channels, side, side)
    assert net.last(x).shape == (1, 1280, 7, 7)


def test_scaling_multiplies_the_cost_by_less_than_two_a_step():
    width, depth, side = compound(1)
    assert depth * width**2 * side**2 == pytest.approx(1.92, abs=0.005)  # section 3.3: about 2
    assert compound(0) == (1, 1, 1)
    assert compound(3)[1] == pytest.approx(1.2**3)


@pytest.mark.parametrize(("number", "phi"), [(0, 0), (1, 0.5), (2, 1), (3, 2), (4, 3.2)])
def test_the_first_five_sizes_are_the_formulas(number, phi):
    width, depth, side = compound(phi)
    assert (round(width, 1), round(depth, 1)) == COEFFICIENTS[number][:2]
    assert 224 * side == pytest.approx(COEFFICIENTS[number][2], rel=0.08)


def test_the_last_three_are_no_formulas():
    """No phi gives both numbers of B5, B6 or B7: their comment says so."""
    both = {(round(width, 1), round(depth, 1)) for width, depth, _ in map(compound, (i / 1000 for i in range(10_000)))}
    assert {c[:2] for c in COEFFICIENTS[:5]} <= both
    assert not {c[:2] for c in COEFFICIENTS[5:]} & both


@pytest.mark.parametrize("number", range(8))
def test_the_formula_gives_the_eight_sizes(number):
    """Width, layers and head of each stage, and the stem, against torchvision's tables of the same network."""
    theirs = on_meta(getattr(torchvision.models, f"efficientnet_b{number}"))
    width, depth, _ = COEFFICIENTS[number]
    found = [(stage.channels, stage.blocks) for stage in scaled(B0, width, depth)]
    assert found == [(stage[-1].out_channels, len(stage)) for stage in theirs.features[1:-1]]
    assert on_meta(getattr(efficientnet, f"efficientnet_b{number}")).stem[0].out_channels == theirs.features[0][0].out_channels


@pytest.mark.parametrize(
    ("wanted", "channels"), [(16, 16), (17.6, 16), (19.2, 24), (22.4, 24), (44.8, 48), (52.8, 56), (3, 8), (12, 16), (11.9, 16)]
)
def test_channels_are_a_multiple_of_8_and_hardly_less_than_wanted(wanted, channels):
    assert scaled([Stage(1, 3, 1, 1, 1)], wanted, 1)[0].channels == channels
    assert channels >= 0.9 * wanted


def test_depth_grows_upwards():
    assert [scaled([Stage(6, 3, 1, 8, n)], 1, 1.1)[0].blocks for n in (1, 2, 3, 10)] == [2, 3, 4, 11]
    assert scaled(B0, 1, 1) == B0


# --- blocks


@pytest.mark.parametrize("block", [MBConv, FusedMBConv])
@pytest.mark.parametrize("expansion", [1, 4])
@pytest.mark.parametrize(("stride", "shape"), [(1, (5, 9)), (2, (3, 5))])
def test_block_shape_rounds_up(block, expansion, stride, shape):
    assert block(8, Stage(expansion, 5, 1, 16, 1), stride)(torch.randn(2, 8, 5, 9)).shape == (2, 16, *shape)


@pytest.mark.parametrize("block", [MBConv, FusedMBConv])
def test_block_without_correction_is_the_identity_and_only_where_the_shape_stays(block):
    x = torch.randn(2, 8, 5, 5)
    for channels, stride, same in ((8, 1, True), (8, 2, False), (16, 1, False)):
        module = block(8, Stage(4, 3, 1, channels, 1), stride).eval()
        nn.init.zeros_(module.project[1].weight)
        out = module(x.clone())
        assert torch.equal(out, x) if same else not out.any()


def test_the_squeeze_is_a_quarter_of_the_narrow_end():
    assert MBConv(40, Stage(6, 5, 1, 40, 1)).excite.squeeze.weight.shape == (10, 240)


def test_branches_are_dropped_the_more_the_deeper():
    net = on_meta(EfficientNet, [Stage(1, 3, 1, 8, 2), Stage(2, 3, 1, 8, 2)], 8, 8, stochastic_depth=0.4)
    assert [block.join.probability for stage in net.stages for block in stage] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_each_filter_starts_with_the_spread_of_its_own_fan():
    torch.manual_seed(0)
    net = efficientnet.efficientnet_b0()
    for conv in (net.stages[6][0].depthwise[0], net.stages[3][1].expand[0], net.last[0]):
        fan_out = conv.kernel_size[0] ** 2 * conv.out_channels // conv.groups
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)


# --- the whole


def tiny(**arguments) -> EfficientNet:
    stages = [Stage(1, 3, 1, 8, 1, fused=True), Stage(2, 3, 2, 8, 2, fused=True), Stage(2, 5, 2, 16, 2)]
    return EfficientNet(stages, 8, 32, num_classes=5, **arguments)


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = tiny(in_channels=2, stochastic_depth=0.0)
    net(torch.randn(4, 2, 16, 16)).square().sum().backward()
    assert [key for key, p in net.named_parameters() if not p.grad.any() or not p.grad.isfinite().all()] == []


def test_exports_for_any_batch():
    torch.manual_seed(0)
    net = tiny().eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": []}, "stages must name at least one stage"),
        ({"stages": [Stage(6, 3, 1, 8, 0)]}, "each of at least 1 block"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"stochastic_depth": -0.1}, r"stochastic_depth must be at least 0 and below 1, got -0\.1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        EfficientNet(**{"stages": B0, "stem_channels": 8, "last_channels": 8} | arguments)


# --- parity


def randomised(net: nn.Module) -> nn.Module:
    """Float64, with every norm and bias at random: a zero bias or a mean of 0 would hide a mix-up.

    The weights keep the signal's size, as torchvision's do not without norms: in evaluation a network of them is chaos.
    """
    torch.manual_seed(0)
    net.double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.3)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.data.normal_(std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                module.bias.data.normal_(std=0.5)
    return net


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str, floor: float = 0.0) -> None:
    scale = max(theirs.abs().max().item(), floor)
    assert scale > 0 and ours.shape == theirs.shape, what
    assert (ours - theirs).abs().max().item() <= 1e-5 * scale, what


@pytest.mark.parametrize("name", [NAMES[0], *BIG])
def test_equals_torchvision(name):
    """Outputs and all gradients, in evaluation and in training with branches dropped; then the running statistics."""
    theirs = randomised(getattr(torchvision.models, name)(num_classes=5, dropout=0.0))
    ours = getattr(efficientnet, name)(num_classes=5, dropout=0.0).double()
    ours.load_state_dict(convert(name, theirs.state_dict()))
    x = torch.randn(4, 3, 40, 40, dtype=torch.float64)
    for mode in (False, True):
        results = []
        for net in (ours, theirs):
            net.train(mode).zero_grad()
            leaf = x.clone().requires_grad_()
            torch.manual_seed(1)  # the same branches
            out = net(leaf)
            (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
            results.append((out.detach(), leaf.grad))
        assert_near(results[0][0], results[1][0], f"output, train={mode}")
        assert_near(results[0][1], results[1][1], f"gradient of the image, train={mode}")
        gradients = {key: value.clone() for key, value in theirs.state_dict().items()}
        gradients = convert(name, gradients | {key: parameter.grad for key, parameter in theirs.named_parameters()})
        # in training, what only shifts the input of a norm has no gradient but rounding; evaluation compares it
        floor = 1e-6 * max(parameter.grad.abs().max().item() for parameter in ours.parameters()) if mode else 0
        for key, parameter in ours.named_parameters():
            assert_near(parameter.grad, gradients[key], f"gradient of {key}, train={mode}", floor)
    after = convert(name, theirs.state_dict())
    for key, buffer in ours.named_buffers():
        assert_near(buffer, after[key], key)
