import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from torch import nn

from dlzoo.models.vision.mlp import MLP, mlp


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_sizes():
    assert count(mlp()) == 855_050
    assert count(mlp(hidden=[])) == 3 * 32 * 32 * 10 + 10 == 30_730
    assert count(mlp(hidden=[7], in_channels=1, side=8)) == 64 * 7 + 7 + 7 * 10 + 10


@pytest.mark.parametrize("side", [8, 20, 32, 47])
def test_shapes(side):
    net = mlp([5, 6], num_classes=7, in_channels=2, side=20)
    x = torch.randn(3, 2, side, side)
    assert net.features(x).shape == (3, 6)
    assert net(x).shape == (3, 7)


def test_another_size_is_repeated_or_averaged():
    net = mlp(in_channels=1, side=8).eval()
    x = torch.randn(2, 1, 8, 8)
    large = x.repeat_interleave(4, 2).repeat_interleave(4, 3)  # its average over 4x4 blocks is x
    torch.testing.assert_close(net(large), net(x))
    wide = mlp(in_channels=1, side=32).eval()
    torch.testing.assert_close(wide(x), wide(large))


@pytest.mark.parametrize(("ours", "theirs"), [("relu", "relu"), ("tanh", "tanh"), ("sigmoid", "logistic")])
def test_computes_what_sklearn_does(ours, theirs):
    torch.manual_seed(0)
    net = mlp([9, 5], num_classes=4, in_channels=1, side=6, activation=ours).eval()
    x = torch.randn(12, 1, 6, 6)
    reference = MLPClassifier((9, 5), activation=theirs, max_iter=1)
    with pytest.warns(UserWarning):  # it is not meant to learn
        reference.fit(x.flatten(1).numpy(), [0, 1, 2, 3] * 3)
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    reference.coefs_ = [linear.weight.detach().numpy().T for linear in linears]
    reference.intercepts_ = [linear.bias.detach().numpy() for linear in linears]
    expected = torch.from_numpy(reference.predict_proba(x.flatten(1).numpy()))
    torch.testing.assert_close(net(x).softmax(1), expected, check_dtype=False, rtol=1e-4, atol=1e-6)


def test_without_hidden_layers_it_is_logistic_regression():
    torch.manual_seed(0)
    net = MLP([], num_classes=3, in_channels=1, side=2)
    x, y = torch.randn(60, 1, 2, 2), torch.randint(3, (60,))
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        # the penalty of sklearn: half the square of the weights, once over all samples
        loss = nn.functional.cross_entropy(net(x), y, reduction="sum") + net.head.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    reference = LogisticRegression(max_iter=1000, tol=1e-8).fit(x.flatten(1).numpy(), y.numpy())
    expected = torch.from_numpy(reference.predict_proba(x.flatten(1).numpy()))
    torch.testing.assert_close(net(x).softmax(1), expected, check_dtype=False, rtol=1e-3, atol=1e-4)


def test_dropout_is_for_training_alone():
    torch.manual_seed(0)
    net = mlp([1000], in_channels=1, side=4, dropout=0.5)
    x = torch.randn(1, 1, 4, 4)
    plain = net.eval().features(x)
    dropped = net.train().features(x)
    kept = dropped != 0
    assert 0.4 < kept.sum() / (plain != 0).sum() < 0.6
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])
    assert not torch.equal(net.features(x), net.features(x))


def test_it_can_learn_what_a_perceptron_can_not():
    """Exclusive or: no straight border tells it apart, one hidden layer does."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    x = torch.stack([x, x], 1)[:, None]  # (4, 1, 2, 2)
    y = torch.tensor([0, 1, 1, 0])
    right = []
    for hidden in ([], [16]):
        torch.manual_seed(0)
        net = mlp(hidden, num_classes=2, in_channels=1, side=2, activation="tanh")
        optimizer = torch.optim.Adam(net.parameters(), 0.05)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        right.append(int((net(x).argmax(1) == y).sum()))
    assert right[0] < 4 and right[1] == 4


def test_a_batch_of_any_size_exports():
    net = mlp([8], in_channels=1, side=4).eval()
    program = torch.export.export(net, (torch.randn(2, 1, 4, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hidden": [8, 0]}, "hidden"),
        ({"side": 0}, "side"),
        ({"num_classes": 0}, "num_classes"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "swish"}, "relu, tanh, sigmoid"),
    ],
)
def test_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        mlp(**arguments)
