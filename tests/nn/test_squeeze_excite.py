import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dlzoo.nn.squeeze_excite import SqueezeExcite


@pytest.mark.parametrize(("activation", "theirs"), [(F.relu, nn.ReLU), (F.silu, nn.SiLU)])
def test_equals_torchvision(activation, theirs):
    torch.manual_seed(0)
    other = torchvision.ops.SqueezeExcitation(12, 3, activation=theirs).double()
    own = SqueezeExcite(12, 3, activation).double()
    own.load_state_dict({key: tensor.view_as(own.state_dict()[key]) for key, tensor in _renamed(other).items()})
    results = []
    for net in (own, other):
        x = torch.linspace(-2, 3, 2 * 12 * 5 * 4, dtype=torch.float64).view(2, 12, 5, 4).requires_grad_()
        out = net(x)
        out.square().sum().backward()
        results.append((out, x.grad, *(parameter.grad.flatten() for parameter in net.parameters())))
    for one, two in zip(*results, strict=True):
        assert two.any()
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def _renamed(net):
    return {key.replace("fc1", "squeeze").replace("fc2", "excite"): tensor for key, tensor in net.state_dict().items()}


def test_closed_gates_stop_a_channel_and_open_ones_pass_it():
    net = SqueezeExcite(2, 1)
    with torch.no_grad():
        net.excite.weight.zero_()
        net.excite.bias.copy_(torch.tensor([-200.0, 200.0]))
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(net.gates(x.mean((2, 3))), torch.tensor([[0.0, 1.0]]).expand(3, 2))
    assert torch.equal(net(x), torch.stack([torch.zeros_like(x[:, 0]), x[:, 1]], 1))


@pytest.mark.parametrize(("arguments", "name"), [((0, 1), "channels"), ((4, 0), "squeezed")])
def test_refuses(arguments, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        SqueezeExcite(*arguments)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_keeps_the_layout_and_the_type(layout):
    x = torch.randn(2, 4, 3, 5, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
    net = SqueezeExcite(4, 2).bfloat16()
    net(x).sum().backward()
    assert x.grad.is_contiguous(memory_format=layout) and x.grad.dtype == torch.bfloat16


def test_can_be_differentiated_twice():
    torch.manual_seed(0)
    net = SqueezeExcite(3, 2, F.silu).double()
    torch.autograd.gradgradcheck(net, torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True))


def test_exports_without_a_function_of_its_own():
    net = SqueezeExcite(3, 2)
    graph = torch.export.export(net, (torch.randn(2, 3, 4, 4),)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert "aten.mean.dim" in called and all(name.startswith("aten.") for name in called)
