import numpy as np
import pytest
import timm
import torch
from timm.layers.cbam import CbamModule
from torch import nn

from dlzoo.models.vision import attention_cnn, resnet
from dlzoo.models.vision.attention_cnn import CBAM, AttentionResNet, AugmentedConv, Block
from dlzoo.nn.squeeze_excite import SqueezeExcite

NAMES = {"se_resnet20": 269_188, "cbam_resnet20": 269_719, "aa_resnet20": 270_186}
F64 = {"dtype": torch.float64}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    assert theirs.abs().max() > 0, what
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), what


def assert_same_function(ours: nn.Module, theirs: nn.Module, names: dict[str, str], x: torch.Tensor) -> None:
    """Output and all gradients, for shared weights; `names` are those of our parameters and buffers -> theirs."""
    state = theirs.state_dict()
    ours.load_state_dict({key: state[other].reshape(ours.state_dict()[key].shape) for key, other in names.items()})
    results = []
    for net in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = net(leaf)
        (out * torch.linspace(-1, 1, out.numel(), **F64).view_as(out)).sum().backward()
        results.append((out.detach(), leaf.grad))
    assert_near(results[0][0], results[1][0], "output")
    assert_near(results[0][1], results[1][1], "gradient of the map")
    theirs = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        assert_near(parameter.grad, theirs[names[key]].grad.reshape(parameter.shape), key)


@pytest.mark.parametrize("name", NAMES)
def test_all_have_the_parameters_of_resnet20(name):
    with torch.device("meta"):
        ours, plain = count(getattr(attention_cnn, name)()), count(resnet.resnet20())
    assert ours == NAMES[name]
    assert abs(ours / plain - 1) < 0.002


def test_without_attention_it_is_resnet20():
    torch.manual_seed(0)
    theirs = resnet.resnet20().double()
    ours = AttentionResNet("none").double()
    names = dict(zip(ours.state_dict(), theirs.state_dict(), strict=True))  # by order
    assert_same_function(ours, theirs, names, torch.randn(2, 3, 16, 16, **F64))


def test_squeeze_excitation_is_timms():
    torch.manual_seed(0)
    theirs = timm.layers.SEModule(16, rd_channels=4).double()
    names = {
        f"{ours}.{part}": f"{other}.{part}"
        for ours, other in (("squeeze", "fc1"), ("excite", "fc2"))
        for part in ("weight", "bias")
    }
    assert_same_function(SqueezeExcite(16, 4).double(), theirs, names, torch.randn(3, 16, 5, 6, **F64))


@pytest.mark.parametrize("mode", [False, True])
def test_cbam_is_timms(mode):
    torch.manual_seed(0)
    theirs = CbamModule(16, rd_channels=4).double().train(mode)
    norm = theirs.spatial.conv.bn
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_()
    names = {
        "0.squeeze.weight": "channel.fc1.weight",
        "0.excite.weight": "channel.fc2.weight",
        "1.conv.weight": "spatial.conv.conv.weight",
    }
    names |= {f"1.norm.{part}": f"spatial.conv.bn.{part}" for part in norm.state_dict()}
    ours = CBAM(16, 4).double().train(mode)
    assert_same_function(ours, theirs, names, torch.randn(3, 16, 5, 6, **F64))
    assert_near(ours[1].norm.running_mean, norm.running_mean, "running mean")


def augmented(net: AugmentedConv, x: np.ndarray) -> np.ndarray:
    """Section 3 of Bello et al. 2019 with loops over images, heads and pairs of places, from the formula alone."""
    weights = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    batch, _, height, width = x.shape
    dk, dv = net.keys // net.heads, net.values // net.heads
    places = [(row, column) for row in range(height) for column in range(width)]
    out = np.zeros((batch, net.values, height, width))
    for b in range(batch):
        mapped = np.einsum("oc,chw->ohw", weights["qkv.weight"][:, :, 0, 0], x[b])
        for n in range(net.heads):
            q, k = mapped[n * dk : (n + 1) * dk], mapped[net.keys + n * dk : net.keys + (n + 1) * dk]
            v = mapped[2 * net.keys + n * dv : 2 * net.keys + (n + 1) * dv]
            for i in places:
                logits = []
                for j in places:
                    distance = weights["rows"][j[0] - i[0] + net.size - 1] + weights["columns"][j[1] - i[1] + net.size - 1]
                    logits.append(q[:, i[0], i[1]] @ (k[:, j[0], j[1]] + distance) / np.sqrt(dk))
                share = np.exp(logits - np.max(logits))
                share /= share.sum()
                out[b, n * dv : (n + 1) * dv, i[0], i[1]] = sum(
                    s * v[:, j[0], j[1]] for s, j in zip(share, places, strict=True)
                )
    out = np.einsum("oc,bchw->bohw", weights["mix.weight"][:, :, 0, 0], out)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernel = weights["conv.weight"]
    conv = sum(
        np.einsum("oc,bchw->bohw", kernel[:, :, r, c], padded[:, :, r : r + height, c : c + width])
        for r in range(3)
        for c in range(3)
    )
    return np.concatenate((conv, out), 1)


@pytest.mark.parametrize("size", [5, 8])
def test_augmented_convolution_is_the_formula(size):
    torch.manual_seed(0)
    net = AugmentedConv(6, 10, keys=6, values=4, heads=2, size=size).double()
    x = torch.randn(2, 6, 4, 5, **F64, requires_grad=True)
    expected = augmented(net, x.detach().numpy())
    assert_near(net(x).detach(), torch.from_numpy(expected), "output")
    # the attention matters, and so does every distance that occurs
    assert np.abs(expected[:, 6:]).max() > 0.1
    assert torch.autograd.gradcheck(
        lambda x, rows: torch.func.functional_call(net, {"rows": rows}, (x,)), (x, net.rows), fast_mode=True
    )


def test_attention_knows_positions_only_relative_to_each_other():
    """The map in the middle of nothing, and the same shifted: without the convolution's border, the same answers, shifted."""
    torch.manual_seed(0)
    net = AugmentedConv(3, 6, keys=4, values=4, heads=2, size=6).double()
    nn.init.zeros_(net.conv.weight)
    x = torch.randn(1, 3, 6, 6, **F64)
    # turned about by whole places the distances change: only a table that is the same for all distances does not see it
    assert (net(x.roll(1, 3)).roll(-1, 3) - net(x)).abs().max() > 1e-3
    for table in (net.rows, net.columns):
        nn.init.constant_(table, 0.3)
    assert_near(net(x.roll(1, 3)).roll(-1, 3), net(x), "equivariance")


def test_without_values_it_is_a_plain_convolution():
    torch.manual_seed(0)
    net = AugmentedConv(3, 8, keys=0, values=0, heads=2, size=4)
    x = torch.randn(2, 3, 9, 7)
    assert list(net.state_dict()) == ["conv.weight"]
    assert torch.equal(net(x), nn.functional.conv2d(x, net.conv.weight, padding=1))


@pytest.mark.parametrize("attention", ["none", "se", "cbam", "aa"])
@pytest.mark.parametrize(("stride", "shape"), [(1, (5, 9)), (2, (3, 5))])
def test_block_shape_rounds_up_and_its_norm_at_zero_leaves_the_shortcut(attention, stride, shape):
    module = Block(8, 16, stride, attention, size=9).eval()
    x = torch.randn(2, 8, 5, 9)
    assert module(x).shape == (2, 16, *shape)
    nn.init.zeros_(module.norm2.weight)
    expected = torch.zeros(2, 16, *shape)
    expected[:, 4:12] = x[:, :, ::stride, ::stride].relu()
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    net = getattr(attention_cnn, name)(num_classes=3)
    net(torch.randn(4, 3, 32, 32)).square().sum().backward()
    bad = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert bad == []


def test_exports_for_any_batch():
    torch.manual_seed(0)
    for attention in ("se", "cbam", "aa"):
        net = AttentionResNet(attention, (8, 16), 1, 3, image_size=16).eval()
        example = (torch.randn(2, 3, 16, 16),)
        exported = torch.export.export(net, example, dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        for batch in (1, 5):
            x = torch.randn(batch, 3, 16, 16)
            torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AttentionResNet("eca"), "attention must be 'none', 'se', 'cbam' or 'aa', got 'eca'"),
        (lambda: AttentionResNet("se", (32, 16)), r"widths must be at least 4 and not shrink, got \(32, 16\)"),
        (lambda: AttentionResNet("se", blocks=0), "blocks must be at least 1, got 0"),
        (lambda: AugmentedConv(4, 8, 5, 4, 2, 8), "heads must divide keys and values, got 2 heads for 5 keys and 4 values"),
        (lambda: AugmentedConv(4, 8, 8, 8, 2, 8), r"values must be in \[0, 8\)"),
        (lambda: AugmentedConv(4, 8, 4, 4, 2, 3)(torch.zeros(1, 4, 4, 3)), r"at most 3 high and wide, got \(4, 3\)"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
