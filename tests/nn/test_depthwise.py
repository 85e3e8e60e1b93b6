"""The depthwise convolution is torch's: its outputs, its gradients, its state dict; only the way to them is another."""

import copy

import pytest
import torch
from torch import nn

from dlzoo.nn import depthwise
from dlzoo.nn.depthwise import DepthwiseConv2d

CASES = [(size, stride) for size in (1, 3, 5, 7, 9) for stride in (1, 2)]


def pair(size: int, stride: int, bias: bool = False, channels: int = 16, dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    theirs = nn.Conv2d(channels, channels, size, stride, size // 2, groups=channels, bias=bias, dtype=dtype)
    ours = DepthwiseConv2d(channels, size, stride, bias).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def gradients(net: nn.Module, x: torch.Tensor, autocast: bool = False):
    net.zero_grad()
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = net(leaf)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).sin().to(out.dtype).view_as(out)
    (out * weights).sum().backward()
    return [out.detach(), leaf.grad, *(parameter.grad for parameter in net.parameters())]


def assert_near(one, two, tolerance):
    for a, b in zip(one, two, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert b.any() and (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "stride"), CASES)
@pytest.mark.parametrize(("height", "width"), [(12, 9), (7, 10), (1, 2)])
def test_equals_torch(size, stride, height, width, layout):
    ours, theirs = pair(size, stride, bias=True)
    x = torch.randn(3, 16, height, width, dtype=torch.float64).to(memory_format=layout)
    assert_near(gradients(ours, x), gradients(theirs, x), 1e-12)


@pytest.mark.parametrize(("size", "stride"), CASES)
def test_equals_torch_in_fp32(size, stride):
    ours, theirs = pair(size, stride, dtype=torch.float32)
    x = torch.randn(3, 16, 11, 8)
    assert_near(gradients(ours, x), gradients(theirs, x), 1e-5)


@pytest.mark.parametrize(("size", "stride"), CASES)
def test_autocast_is_no_further_from_the_truth_than_torch(size, stride):
    ours, theirs = pair(size, stride, bias=True, dtype=torch.float32)
    x = torch.randn(4, 16, 12, 12).to(memory_format=torch.channels_last)
    truth = gradients(copy.deepcopy(theirs), x)
    for a, b, true in zip(gradients(ours, x, autocast=True), gradients(theirs, x, autocast=True), truth, strict=True):
        assert a.dtype == b.dtype
        error, theirs_error = ((value.float() - true).norm() / true.norm() for value in (a, b))
        assert 0 < error <= 1.5 * theirs_error


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (3, 2)])
def test_the_slow_cases_take_our_way_and_only_in_training_on_a_cpu(size, stride, monkeypatch):
    calls = []
    original = depthwise._Depthwise.apply
    monkeypatch.setattr(depthwise._Depthwise, "apply", lambda *words: calls.append(1) or original(*words))
    net, x = DepthwiseConv2d(8, size, stride), torch.randn(1, 8, 6, 6)
    net(x)
    assert len(calls) == 1
    with torch.no_grad():
        net(x)
    net.to("meta")(x.to("meta"))
    DepthwiseConv2d(8)(x)
    assert len(calls) == 1


def test_nothing_in_fp32_is_kept_for_the_backward_pass_of_bf16():
    kept = []
    x = torch.randn(2, 16, 12, 12, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        DepthwiseConv2d(16, 5, 2).bfloat16()(x)
    assert kept and all(tensor.dtype == torch.bfloat16 for tensor in kept)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_keeps_the_layout(layout):
    for size, stride in ((5, 1), (3, 2)):
        x = torch.randn(2, 8, 6, 6).to(memory_format=layout)
        assert gradients(DepthwiseConv2d(8, size, stride).to(memory_format=layout), x)[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 1), (5, 2)])
def test_can_be_differentiated_twice(size, stride):
    ours, _ = pair(size, stride, bias=True, channels=2)
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)

    def call(x, weight, bias):
        return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, x)

    torch.autograd.gradgradcheck(call, (x, ours.weight, ours.bias))


def test_frozen_weights_get_no_gradient():
    net = DepthwiseConv2d(4, 5).requires_grad_(False)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    net(x).sum().backward()
    assert net.weight.grad is None and x.grad.any()


@pytest.mark.parametrize(("size", "stride"), [(5, 2), (3, 2)])
def test_exports_as_one_convolution(size, stride):
    net = DepthwiseConv2d(8, size, stride)
    graph = torch.export.export(net, (torch.randn(1, 8, 6, 6),)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert called == ["aten.conv2d.default"]


def test_compiles_to_the_same():
    ours, theirs = pair(5, 2, dtype=torch.float32)
    x = torch.randn(2, 16, 8, 8)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert_near(gradients(compiled, x), gradients(theirs, x), 1e-5)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"kernel_size must be odd.* got 4"):
        DepthwiseConv2d(8, 4)
