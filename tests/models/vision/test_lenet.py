import numpy as np
import pytest
import torch
from torch import nn

from dlzoo.models.vision.lenet import LeNet5, lenet5


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_counts_are_the_papers_where_the_layer_is_the_papers():
    """Section II-B gives each layer's number: C1 156, C5 48,120, F6 10,164. C3 has 1,516 there, of a choice of maps."""
    net = lenet5()
    c1, c3 = (layer for layer in net.layers if isinstance(layer, nn.Conv2d))
    c5, f6 = (layer for layer in net.hidden if isinstance(layer, nn.Linear))
    assert [count(layer) for layer in (c1, c5, f6)] == [156, 48_120, 10_164]
    assert count(c3) == 6 * 16 * 25 + 16
    assert count(net) == 61_706 and "61,706 parameters" in lenet5.__doc__


def test_maps_are_those_of_figure_2():
    x = torch.zeros(2, 1, 32, 32)
    shapes = []
    for layer in lenet5().layers:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    assert [shapes[i] for i in (0, 2, 3, 5)] == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)]


def by_hand(net: LeNet5, image: np.ndarray) -> np.ndarray:
    """The network as loops over NumPy arrays, for one image of 32x32."""

    def convolve(maps: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
        weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        side = maps.shape[1] - 4
        out = np.empty((len(weight), side, side))
        for row in range(side):
            for column in range(side):
                out[:, row, column] = (weight * maps[None, :, row : row + 5, column : column + 5]).sum((1, 2, 3)) + bias
        return np.tanh(out)

    def average(maps: np.ndarray) -> np.ndarray:
        return (maps[:, ::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, ::2] + maps[:, 1::2, 1::2]) / 4

    x = average(convolve(image, net.layers[0]))
    x = average(convolve(x, net.layers[3])).reshape(-1)
    for layer in (net.hidden[0], net.hidden[2]):
        x = np.tanh(layer.weight.detach().numpy() @ x + layer.bias.detach().numpy())
    return net.head.weight.detach().numpy() @ x + net.head.bias.detach().numpy()


def test_equals_loops_over_arrays():
    torch.manual_seed(0)
    net = lenet5(in_channels=2).double()
    for parameter in net.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    x = torch.randn(1, 2, 32, 32, dtype=torch.float64)
    np.testing.assert_allclose(net(x)[0].detach().numpy(), by_hand(net, x[0].numpy()), rtol=1e-10)


@pytest.mark.parametrize("shape", [(28, 28), (8, 9), (32, 31)])
def test_a_small_image_lies_in_the_middle_of_zeros(shape):
    torch.manual_seed(0)
    net, x = lenet5(), torch.randn(2, 1, *shape)
    padded = torch.zeros(2, 1, 32, 32)
    top, left = (32 - shape[0]) // 2, (32 - shape[1]) // 2
    padded[:, :, top : top + shape[0], left : left + shape[1]] = x
    assert torch.equal(net(x), net(padded))


def test_relu_is_another_network():
    torch.manual_seed(0)
    net = lenet5(activation="relu")
    assert net.layers(torch.randn(4, 1, 32, 32)).min() == 0 and not any(isinstance(m, nn.Tanh) for m in net.modules())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_signals_keep_their_size_at_the_start(activation):
    torch.manual_seed(0)
    logits = lenet5(activation=activation)(torch.randn(256, 1, 28, 28))
    assert 0.1 < logits.std() < 2


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = LeNet5(3, 2)
    net(torch.randn(4, 2, 28, 28)).square().sum().backward()
    assert [key for key, p in net.named_parameters() if not p.grad.any() or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("side", [28, 32])
def test_exports_for_any_batch(side):
    net = lenet5().eval()
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(net, (torch.randn(2, 1, side, side),), dynamic_shapes=shapes).module()
    for batch in (1, 5):
        x = torch.randn(batch, 1, side, side)
        torch.testing.assert_close(exported(x), net(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LeNet5(num_classes=0), "num_classes and in_channels must be at least 1, got 0 and 1"),
        (lambda: LeNet5(in_channels=0), "num_classes and in_channels must be at least 1, got 10 and 0"),
        (lambda: LeNet5(activation="gelu"), "activation must be 'tanh' or 'relu', got 'gelu'"),
        (lambda: lenet5()(torch.zeros(1, 1, 28, 33)), "LeNet-5 reads images of at most 32x32, got 28x33"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
