import copy

import pytest
import torch
import torchvision
from torch import nn

from dlzoo.models.vision import densenet
from dlzoo.models.vision.densenet import DenseBlock, DenseNet, Transition

IMAGENET = {"densenet121": 8.0, "densenet169": 14.1, "densenet201": 20.0, "densenet161": 28.7}
CIFAR = {"densenet_bc40": (40, 12, 0.18), "densenet_bc100": (100, 12, 0.8), "densenet_bc250": (250, 24, 15.3)}
CIFAR["densenet_bc190"] = (190, 40, 25.6)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(IMAGENET)[1:]]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(make, **arguments) -> nn.Module:
    with torch.device("meta"):
        return make(**arguments)


def tiny(**arguments) -> DenseNet:
    torch.manual_seed(0)
    return DenseNet(**{"layers_per_block": (2, 3), "growth": 4, "num_classes": 3} | arguments)


# --- what the paper says


def formula(depth: int, growth: int) -> int:
    """The parameters of DenseNet-BC for CIFAR-10, added up by hand: section 3."""
    layers, channels, total = (depth - 4) // 6, 2 * growth, 3 * 2 * growth * 9
    for block in range(3):
        for _ in range(layers):
            total += 2 * channels + channels * 4 * growth  # norm and 1x1
            total += 2 * 4 * growth + 4 * growth * growth * 9  # norm and 3x3
            channels += growth
        if block < 2:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + channels * 10 + 10


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_sizes_are_the_papers(name):
    depth, growth, millions = CIFAR[name]
    net = on_meta(getattr(densenet, name))
    assert count(net) == formula(depth, growth)
    assert count(net) / 1e6 == pytest.approx(millions, abs=0.05 if millions > 0.5 else 0.005)
    assert f"{count(net):,} parameters" in getattr(densenet, name).__doc__
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules()) == depth


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_sizes_are_torchvisions(name):
    net = on_meta(getattr(densenet, name))
    assert count(net) == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert round(count(net) / 1e6, 1) == IMAGENET[name]
    assert f"{count(net):,} parameters" in getattr(densenet, name).__doc__
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules()) == int(name.removeprefix("densenet"))


def test_densenet121_is_table_1():
    """Channels and side of each block's and transition's output at 224 pixels."""
    net, x = on_meta(densenet.densenet121), torch.empty(1, 3, 224, 224, device="meta")
    x = net.stem(x)
    rows = [(256, 56), (128, 28), (512, 28), (256, 14), (1024, 14), (512, 7), (1024, 7)]
    assert x.shape == (1, 64, 56, 56)
    for stage, (channels, side) in zip(net.stages, rows, strict=True):
        x = stage(x)
        assert x.shape == (1, channels, side, side)


@pytest.mark.parametrize(("name", "side", "features"), [("densenet_bc40", 33, (132, 8, 8)), ("densenet121", 65, (1024, 2, 2))])
def test_shapes(name, side, features):
    net = on_meta(getattr(densenet, name), num_classes=7, in_channels=2)
    x = torch.empty(3, 2, side, side, device="meta")
    assert net.features(x).shape == (3, *features)
    assert net(x).shape == (3, 7)


def test_a_layer_reads_all_before_it_and_nothing_is_overwritten():
    """With its weights at 0 a layer adds zeros, and what came before passes as it was."""
    torch.manual_seed(0)
    block = DenseBlock(3, 5, 2)
    assert [layer.conv1.in_channels for layer in block.layers] == [5, 7, 9]
    x = torch.randn(2, 5, 4, 4)
    y = block(x)
    assert y.shape == (2, 11, 4, 4) and torch.equal(y[:, :5], x)
    nn.init.zeros_(block.layers[1].conv2.weight)
    changed = block(x)
    assert torch.equal(changed[:, :7], y[:, :7]) and not changed[:, 7:9].any()
    assert not torch.equal(changed[:, 9:], y[:, 9:]), "the last layer reads the second's output"


@pytest.mark.parametrize("shape", [(6, 8), (7, 9)])
def test_averaging_before_the_convolution_is_averaging_after_it(shape):
    torch.manual_seed(0)
    transition = Transition(6, 3).double()
    x = torch.randn(2, 6, *shape, dtype=torch.float64)
    as_written = nn.functional.avg_pool2d(transition.conv(torch.relu(transition.norm(x))), 2)
    torch.testing.assert_close(transition(x), as_written, rtol=1e-12, atol=1e-12)


def test_every_parameter_learns():
    net = tiny(in_channels=2)
    net(torch.randn(4, 2, 32, 32)).square().sum().backward()
    assert [key for key, p in net.named_parameters() if not p.grad.any() or not p.grad.isfinite().all()] == []


def test_dropout_is_of_training_alone():
    net, x = tiny(dropout=0.5, stem="small"), torch.randn(2, 3, 8, 8)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_exports_for_any_batch():
    """In evaluation there is nothing to save: no checkpoint is in the graph."""
    net = tiny(layers_per_block=(2, 1), stem="small", memory_efficient=True).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers_per_block": ()}, "layers_per_block must name at least one block, each of at least 1 layer"),
        ({"layers_per_block": (2, 0)}, r"at least 1 layer, got \(2, 0\)"),
        ({"growth": 0}, "growth must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": -1}, "in_channels must be at least 1, got -1"),
        ({"stem": "tiny"}, "stem must be 'small' or 'large', got 'tiny'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


# --- memory_efficient


def trained(net: nn.Module, x: torch.Tensor, steps: int = 2) -> dict[str, torch.Tensor]:
    """Outputs, gradients and state after some steps of descent, with the same dropout each time."""
    torch.manual_seed(1)
    net.train()
    for _ in range(steps):
        net.zero_grad()
        leaf = x.clone().requires_grad_()
        out = net(leaf)
        out.square().sum().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 1e-3 * parameter.grad
    gradients = {f"gradient of {key}": parameter.grad for key, parameter in net.named_parameters()}
    return {"output": out, "gradient of the image": leaf.grad} | gradients | dict(net.state_dict())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_less_memory_is_the_same_training(dropout):
    plain = tiny(dropout=dropout).double()
    frugal = tiny(dropout=dropout, memory_efficient=True).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected, found = trained(plain, x), trained(frugal, x)
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-9, atol=1e-11, msg=key)
    assert frugal.norm.num_batches_tracked == frugal.stages[0].layers[0].norm1.num_batches_tracked == 2


def test_torchvisions_memory_efficient_counts_each_batch_twice():
    """What ours must not do: if this fails, torchvision has mended it, and a comment can go."""
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    net = torchvision.models.DenseNet(4, (2, 2), 8, memory_efficient=True, num_classes=3).double()
    net(x).sum().backward()
    assert net.features.denseblock1.denselayer1.norm1.num_batches_tracked == 2
    assert net.features.denseblock1.denselayer1.norm2.num_batches_tracked == 1


def saved_bytes(net: nn.Module, x: torch.Tensor) -> int:
    """What autograd keeps between the two passes, each storage counted once, without the parameters."""
    own = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = net.train()(x)
    assert out.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_grows_with_the_depth_and_not_with_its_square():
    x = torch.randn(2, 24, 16, 16)

    def bytes_of(layers: int, frugal: bool) -> int:
        torch.manual_seed(0)
        return saved_bytes(DenseBlock(layers, 24, 12, memory_efficient=frugal), x)

    new = 2 * 12 * 16 * 16 * 4  # what a layer adds
    assert bytes_of(16, True) - bytes_of(8, True) == pytest.approx(8 * new, rel=0.2)
    assert bytes_of(16, False) - bytes_of(8, False) > 8 * 20 * new


def test_evaluation_with_gradients_is_the_same_in_both():
    plain, frugal = tiny().eval(), tiny(memory_efficient=True).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain(x), frugal(x))


# --- parity


@pytest.mark.parametrize("name", [next(iter(IMAGENET)), *SLOW])
def test_equals_torchvision(name, assert_parity):
    theirs = getattr(torchvision.models, name)(num_classes=5)
    assert_parity(name, getattr(densenet, name)(num_classes=5), theirs, torch.randn(4, 3, 32, 32, dtype=torch.float64))


def renamed_small(theirs: nn.Module) -> nn.Module:
    """torchvision's with the CIFAR stem: its pool, norm and relu are gone."""
    theirs.features.conv0 = nn.Conv2d(3, theirs.features.conv0.out_channels, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        delattr(theirs.features, name)
    return theirs


@pytest.mark.parametrize("name", ["densenet_bc40", *(pytest.param(n, marks=pytest.mark.slow) for n in list(CIFAR)[1:])])
def test_cifar_form_equals_torchvisions_layers(name, assert_parity):
    depth, growth, _ = CIFAR[name]
    theirs = torchvision.models.DenseNet(growth, ((depth - 4) // 6,) * 3, 2 * growth, num_classes=5)
    renamed = renamed_small(theirs)
    assert_parity("densenet121", getattr(densenet, name)(num_classes=5), renamed, torch.randn(4, 3, 8, 8).double())


@pytest.mark.slow
def test_less_memory_at_full_size_is_the_same_training():
    torch.manual_seed(0)
    plain = densenet.densenet121(num_classes=5).double()
    frugal = densenet.densenet121(num_classes=5, memory_efficient=True).double()
    frugal.load_state_dict(copy.deepcopy(plain.state_dict()))
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected, found = trained(plain, x, 1), trained(frugal, x, 1)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-7, atol=1e-9, msg=key)
