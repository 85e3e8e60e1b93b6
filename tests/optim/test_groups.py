"""Parameter groups: who is decayed."""

import pytest
import torch
from torch import nn

from dlzoo import zoo
from dlzoo.optim.groups import parameter_groups
from dlzoo.tasks.classification import Classification


def _net():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(1), nn.LayerNorm((3, 4)), nn.Linear(12, 2))


def test_with_decay_for_all_the_optimizer_gets_the_parameters_as_they_are():
    net = _net()
    assert [id(p) for p in parameter_groups(net)] == [id(p) for p in net.parameters()]


def test_norms_and_biases_are_a_group_without_decay():
    net = _net()
    weights, rest = parameter_groups(net, decay_norms_and_biases=False)
    assert [id(p) for p in weights["params"]] == [id(net[0].weight), id(net[4].weight)]
    expected = [net[0].bias, *net[1].parameters(), *net[3].parameters(), net[4].bias]
    assert [id(p) for p in rest["params"]] == [id(p) for p in expected], "a norm over two dimensions is a norm"
    assert rest["weight_decay"] == 0 and "weight_decay" not in weights


def test_frozen_parameters_and_empty_groups_are_left_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    net[0].requires_grad_(False)
    assert [[id(p) for p in group["params"]] for group in parameter_groups(net, False)] == [[id(net[1].weight)]]
    assert [id(p) for p in parameter_groups(net)] == [id(net[1].weight)]


@pytest.mark.parametrize("name", zoo.list_configs("optimizer"))
@pytest.mark.parametrize("decayed", [True, False])
def test_only_what_shall_shrinks_without_a_gradient(name, decayed, tmp_path):
    """One step with gradients of zero: all that moves a parameter is its decay. The first group's rate is the report's."""
    from dlzoo.config import compose

    node = dict(compose(f"optimizer={name}", "optimizer.lr=0.1").optimizer)
    optimizer_of = zoo.build(node | {"weight_decay": 0.5})
    net = _net()
    before = [parameter.detach().clone().fill_(1.0) for parameter in net.parameters()]
    task = Classification(net, optimizer_of, lambda *_, **__: None, num_classes=2, decay_norms_and_biases=decayed)
    optimizer = task.optimizer(parameter_groups(net, task.decay_norms_and_biases))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {n for (n, p), old in zip(net.named_parameters(), before, strict=True) if not torch.equal(p, old)}
    assert moved == ({n for n, _ in net.named_parameters()} if decayed else {"0.weight", "4.weight"})
    assert optimizer.param_groups[0]["lr"] == 0.1
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["param_groups"][-1]["weight_decay"] == (0.5 if decayed else 0)
