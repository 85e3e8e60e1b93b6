"""Trainings step for step beside the same network in torch: the same first weights, the same batches, the same losses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlzoo.scratch import train
from dlzoo.scratch.dense import Dense
from dlzoo.scratch.layer import Parameter
from dlzoo.scratch.losses import MeanSquaredError, SoftmaxCrossEntropy
from dlzoo.scratch.optimizers import SGD, Adam, Momentum, RMSprop

OPTIMIZERS = {
    "sgd": (lambda p: SGD(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (lambda p: Momentum(p, lr=0.05), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "rmsprop": (lambda p: RMSprop(p, lr=1e-3), lambda p: torch.optim.RMSprop(p, lr=1e-3)),
    "adam": (lambda p: Adam(p, lr=2e-3), lambda p: torch.optim.Adam(p, lr=2e-3)),
}


def _twin(network, side):
    """The same network in torch, with copies of the weights; written down anew, so that it is not ours in other clothes."""
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    if len(dense) == 3:
        width = dense[0].weight.value.shape[1]
        twin = nn.Sequential(
            *(nn.Flatten(), nn.Linear(side * side, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        )
    else:
        width = len(network.layers[0].bias.value)
        first = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AvgPool2d(2)]
        twin = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, 10))
    twin = twin.double()
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            value = mine.value.T if mine.value.ndim == 2 else mine.value  # torch's dense layers keep (outputs, inputs)
            theirs.copy_(torch.tensor(value))
    return twin


def _compare(model, optimizer, data, steps, size):
    """Trains both, and returns the losses of each step."""
    rng, side = np.random.default_rng(0), data.train_images.shape[-1]
    network, loss = model(side, rng), SoftmaxCrossEntropy()
    twin = _twin(network, side)
    made, made_in_torch = OPTIMIZERS[optimizer]
    ours, theirs = made(network.parameters()), made_in_torch(twin.parameters())
    chosen, found = [], ([], [])
    while len(chosen) < steps:
        chosen += list(train.batches(len(data.train_labels), size, rng))
    for index in chosen[:steps]:
        images, labels = data.train_images[index], data.train_labels[index]
        found[0].append(train.step(network, loss, ours, images, labels))
        theirs.zero_grad()
        value = F.cross_entropy(twin(torch.tensor(images)), torch.tensor(labels))
        value.backward()
        theirs.step()
        found[1].append(value.item())
    twin.eval()
    with torch.no_grad():
        right = (twin(torch.tensor(data.test_images)).argmax(1).numpy() == data.test_labels).mean()
    assert train.accuracy(network, data.test_images, data.test_labels) == pytest.approx(right, abs=1e-12)
    return np.array(found), right


@pytest.fixture(scope="module")
def digits():
    return train.digits()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", [train.mlp, train.cnn], ids=["mlp", "cnn"])
def test_digits_are_learned_with_the_losses_of_torch(model, optimizer, digits):
    (ours, theirs), right = _compare(model, optimizer, digits, steps=88, size=32)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert ours[-10:].mean() < 0.75 * ours[:10].mean() and right > 0.4, "it learns"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer", "steps", "least"),
    # an epoch is 937 steps of 64; momentum's rate of 0.05 is too much for the MLP's 784 inputs, whose background is -1
    [(train.mlp, "adam", 937, 0.92), (train.cnn, "momentum", 300, 0.95)],
    ids=["mlp", "cnn"],
)
def test_mnist_is_learned_with_the_losses_of_torch(model, optimizer, steps, least, data_dir):
    (ours, theirs), right = _compare(model, optimizer, train.mnist(data_dir / "mnist"), steps=steps, size=64)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert right > least


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_as_torchs(name):
    made, made_in_torch = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    parameter, tensor = Parameter(rng.normal(size=(3, 4))), None
    tensor = torch.tensor(parameter.value.copy(), requires_grad=True)
    ours, theirs = made([parameter]), made_in_torch([tensor])
    for _ in range(20):
        parameter.gradient = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-6, 3)
        tensor.grad = torch.tensor(parameter.gradient)
        ours.step()
        theirs.step()
        np.testing.assert_allclose(parameter.value, tensor.detach(), rtol=1e-10)


def test_a_line_is_fitted():
    """Mean squared error and a dense layer find the line that the points lie on."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 2))
    y = x @ np.array([[2.0], [-1.0]]) + 0.5
    layer, loss = Dense(2, 1, rng), MeanSquaredError()
    optimizer = SGD(layer.parameters(), lr=0.1)
    for _ in range(300):
        loss.forward(layer.forward(x), y)
        layer.backward(loss.backward())
        optimizer.step()
    np.testing.assert_allclose(layer.weight.value, [[2], [-1]], atol=1e-6)
    np.testing.assert_allclose(layer.bias.value, [0.5], atol=1e-6)


def test_an_epoch_is_every_sample_once():
    chosen = np.concatenate(list(train.batches(103, 10, np.random.default_rng(0))))
    assert len(chosen) == len(set(chosen)) == 100


def test_dropout_is_part_of_the_mlp(digits):
    rng = np.random.default_rng(0)
    network = train.mlp(8, rng, dropout=0.5)
    x = digits.train_images[:4]
    assert not np.allclose(network.forward(x), network.forward(x))
    network.train(False)
    np.testing.assert_array_equal(network.forward(x), network.forward(x))


def test_the_command_trains_and_says_so(capsys):
    tested = train.main(["digits", "--epochs", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cnn on digits: 1,946 parameters, adam"
    assert len(lines) == 5 and lines[-1].startswith("epoch 4/4  train/loss ")
    assert f"test/acc {tested:.4f}" in lines[-1] and tested > 0.85


def test_the_command_repeats_itself(capsys):
    runs = []
    for _ in range(2):
        train.main(["--model", "mlp", "--epochs", "1", "--seed", "5"])
        runs.append(capsys.readouterr().out.rsplit(maxsplit=2)[0])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["mnist"], "there is no folder"), (["--epochs", "0"], "at least 1"), (["faces"], "invalid choice")],
)
def test_the_command_says_what_is_wrong(arguments, words, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DLZOO_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        train.main(arguments)
    assert caught.value.code == 2 and words in capsys.readouterr().err
