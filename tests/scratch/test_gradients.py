"""Every backward pass, against finite differences and against autograd, in float64."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlzoo.scratch.activations import GELU, ReLU, Sigmoid, Tanh
from dlzoo.scratch.convolution import Conv2d, col2im, im2col
from dlzoo.scratch.dense import Dense, Flatten
from dlzoo.scratch.layer import Sequential
from dlzoo.scratch.losses import MeanSquaredError, SoftmaxCrossEntropy, softmax
from dlzoo.scratch.pooling import AvgPool2d, MaxPool2d
from dlzoo.scratch.regularisers import BatchNorm, Dropout


def _rng():
    return np.random.default_rng(3)


def _norm(channels, training=True):
    """A batch norm with a history, and a scale and a shift that are not 1 and 0."""
    layer, rng = BatchNorm(channels), _rng()
    layer.scale.value, layer.shift.value = rng.normal(1, 0.3, channels), rng.normal(size=channels)
    layer.mean, layer.variance = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
    layer.train(training)
    return layer


def _torch_norm(layer, x, scale, shift):
    mean, variance = torch.tensor(_norm(len(layer.mean)).mean), torch.tensor(_norm(len(layer.mean)).variance)
    return F.batch_norm(x, mean, variance, scale, shift, layer.training, layer.momentum, layer.eps)


def _torch_pool(name):
    return lambda layer, x: getattr(F, name)(x, layer.size, layer.stride)


# the layer, the shape of its input, and the same in torch, given the layer, the input and the parameters
CASES = {
    "dense": (lambda: Dense(5, 3, _rng()), (4, 5), lambda _, x, w, b: x @ w + b),
    "flatten": (Flatten, (2, 3, 2, 5), lambda _, x: x.flatten(1)),
    "relu": (ReLU, (4, 7), lambda _, x: F.relu(x)),
    "sigmoid": (Sigmoid, (4, 7), lambda _, x: torch.sigmoid(x)),
    "tanh": (Tanh, (4, 7), lambda _, x: torch.tanh(x)),
    "gelu": (GELU, (4, 7), lambda _, x: F.gelu(x, approximate="tanh")),
    "conv": (lambda: Conv2d(2, 3, 3, _rng()), (2, 2, 5, 7), lambda _, x, w, b: F.conv2d(x, w, b)),
    "conv, padded": (lambda: Conv2d(2, 3, 3, _rng(), padding=1), (2, 2, 4, 5), lambda _, x, w, b: F.conv2d(x, w, b, padding=1)),
    "conv, strided": (
        lambda: Conv2d(2, 3, 3, _rng(), stride=2, padding=2),
        (2, 2, 6, 5),
        lambda _, x, w, b: F.conv2d(x, w, b, stride=2, padding=2),
    ),
    "conv, a point": (lambda: Conv2d(3, 2, 1, _rng(), stride=3), (2, 3, 5, 7), lambda _, x, w, b: F.conv2d(x, w, b, stride=3)),
    "max": (lambda: MaxPool2d(2), (2, 3, 4, 6), _torch_pool("max_pool2d")),
    "max, overlapping": (lambda: MaxPool2d(3, 2), (2, 3, 7, 6), _torch_pool("max_pool2d")),
    "mean": (lambda: AvgPool2d(2), (2, 3, 5, 6), _torch_pool("avg_pool2d")),
    "mean, overlapping": (lambda: AvgPool2d(3, 1), (2, 3, 4, 5), _torch_pool("avg_pool2d")),
    "norm": (lambda: _norm(3), (5, 3), _torch_norm),
    "norm of images": (lambda: _norm(3), (2, 3, 4, 2), _torch_norm),
    "norm in use": (lambda: _norm(3, training=False), (2, 3, 4, 2), _torch_norm),
    "dropout": (lambda: Dropout(0.4, _rng()), (6, 7), lambda layer, x: x * torch.tensor(layer.mask)),
}


def _numeric(function, x, step=1e-6):
    """The gradient of a number with respect to an array, by moving each of its numbers a little up and down."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function()
        x[index] = kept - step
        below = function()
        x[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


@pytest.mark.parametrize("name", CASES)
def test_backward_is_the_derivative_of_forward(name):
    make, shape, _ = CASES[name]
    layer, x = make(), np.random.default_rng(1).normal(size=shape)
    weights = np.random.default_rng(2).normal(size=layer.forward(x).shape)  # a loss that weighs every output

    def loss():
        if isinstance(layer, Dropout):
            layer.rng = _rng()  # the same mask again
        return float((layer.forward(x) * weights).sum())

    loss()
    dx = layer.backward(weights)
    found = [parameter.gradient.copy() for parameter in layer.parameters()]
    np.testing.assert_allclose(dx, _numeric(loss, x), rtol=1e-6, atol=1e-7)
    for parameter, gradient in zip(layer.parameters(), found, strict=True):
        assert np.abs(gradient).max() > 1e-3
        np.testing.assert_allclose(gradient, _numeric(loss, parameter.value), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_are_torchs(name):
    make, shape, in_torch = CASES[name]
    layer, x = make(), np.random.default_rng(1).normal(size=shape)
    y = layer.forward(x)
    weights = np.random.default_rng(2).normal(size=y.shape)
    dx = layer.backward(weights)
    tensors = [torch.tensor(value, requires_grad=True) for value in (x, *(p.value for p in layer.parameters()))]
    theirs = in_torch(layer, *tensors)
    np.testing.assert_allclose(y, theirs.detach(), rtol=1e-10, atol=1e-12)
    theirs.backward(torch.tensor(weights))
    for ours, tensor in zip([dx, *(p.gradient for p in layer.parameters())], tensors, strict=True):
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-10, atol=1e-12)


def test_of_equal_numbers_the_first_is_the_largest_as_in_torch():
    x = np.ones((1, 1, 4, 4))
    layer = MaxPool2d(2)
    layer.forward(x)
    tensor = torch.tensor(x, requires_grad=True)
    F.max_pool2d(tensor, 2).sum().backward()
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 2, 2))), tensor.grad)


def test_the_running_statistics_are_torchs():
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3, dtype=torch.float64)
    for seed in range(3):
        x = np.random.default_rng(seed).normal(2, 3, (4, 3, 2, 5))
        ours.forward(x)
        theirs(torch.tensor(x))
    np.testing.assert_allclose(ours.mean, theirs.running_mean, rtol=1e-12)
    np.testing.assert_allclose(ours.variance, theirs.running_var, rtol=1e-12)
    before = ours.mean.copy()
    ours.train(False)
    y = ours.forward(x)
    np.testing.assert_array_equal(ours.mean, before)
    np.testing.assert_allclose(y, theirs.eval()(torch.tensor(x)).detach(), rtol=1e-10, atol=1e-12)


def test_dropout_keeps_the_mean_in_training_and_everything_in_use():
    layer, x = Dropout(0.25, _rng()), np.ones((400, 100))
    y = layer.forward(x)
    assert set(np.unique(y)) == {0, 1 / 0.75}
    assert abs(y.mean() - 1) < 0.01
    layer.train(False)
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_col2im_is_the_transpose_of_im2col():
    """<im2col(x), y> = <x, col2im(y)> for all x and y is what a transpose is."""
    rng = _rng()
    for size, stride, padding in ((2, 1, 0), (3, 2, 1), (1, 2, 0), (4, 3, 2)):
        x = rng.normal(size=(2, 3, 6, 7))
        patches = im2col(x, size, stride, padding)
        y = rng.normal(size=patches.shape)
        assert (patches * y).sum() == pytest.approx((x * col2im(y, x.shape, stride, padding)).sum(), rel=1e-10)


# --- losses


@pytest.mark.parametrize("scale", [1, 500])  # the second one overflows where it is written down naively
def test_cross_entropy(scale):
    logits, labels = scale * _rng().normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    loss = SoftmaxCrossEntropy()
    tensor = torch.tensor(logits, requires_grad=True)
    theirs = F.cross_entropy(tensor, torch.tensor(labels))
    theirs.backward()
    assert loss.forward(logits, labels) == pytest.approx(theirs.item(), rel=1e-12)
    gradient = loss.backward()
    np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, rtol=1e-12)
    if scale == 1:
        numeric = _numeric(lambda: loss.forward(logits, labels), logits)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_mean_squared_error():
    outputs, targets = _rng().normal(size=(5, 4)), np.random.default_rng(1).normal(size=(5, 4))
    loss = MeanSquaredError()
    tensor = torch.tensor(outputs, requires_grad=True)
    theirs = F.mse_loss(tensor, torch.tensor(targets))
    theirs.backward()
    assert loss.forward(outputs, targets) == pytest.approx(theirs.item(), rel=1e-12)
    gradient = loss.backward()
    np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-10)
    np.testing.assert_allclose(gradient, _numeric(lambda: loss.forward(outputs, targets), outputs), rtol=1e-6, atol=1e-8)


# --- the whole


def test_the_gradient_of_a_whole_network():
    """Everything in one chain: finite differences of the loss with respect to every parameter."""
    rng = _rng()
    network = Sequential(
        *(Conv2d(1, 2, 3, rng, padding=1), BatchNorm(2), Tanh(), MaxPool2d(2), Conv2d(2, 2, 2, rng), GELU(), AvgPool2d(2)),
        *(Flatten(), Dense(2, 3, rng), Sigmoid(), Dense(3, 2, rng)),
    )
    x, labels, loss = rng.normal(size=(3, 1, 6, 6)), np.array([0, 1, 1]), SoftmaxCrossEntropy()
    loss.forward(network.forward(x), labels)
    network.backward(loss.backward())
    found = [parameter.gradient.copy() for parameter in network.parameters()]
    assert len(found) == 10
    for parameter, gradient in zip(network.parameters(), found, strict=True):
        numeric = _numeric(lambda: loss.forward(network.forward(x), labels), parameter.value)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-8)


def test_training_mode_reaches_every_layer():
    network = Sequential(Dense(2, 2, _rng()), Sequential(Dropout(0.5, _rng()), BatchNorm(2)))
    network.train(False)
    assert not any(layer.training for layer in (network, *network.layers, *network.layers[1].layers))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dropout(1.0, _rng()), "p must be"),
        (lambda: Dropout(-0.1, _rng()), "p must be"),
        (lambda: im2col(np.zeros((1, 1, 3, 5)), 4), "a patch of 4 does not fit into 3 x 5 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_numpy_alone():
    """Nothing of ours, and of others NumPy; scikit-learn only for its data."""
    folder = Path(__file__).resolve().parents[2] / "dlzoo" / "scratch"
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name for name in names if not name.startswith("dlzoo.scratch.")}
    others = {"argparse", "collections.abc", "gzip", "os", "pathlib", "time", "typing"}
    assert found - others == {"numpy", "numpy.lib.stride_tricks", "sklearn.datasets"}
