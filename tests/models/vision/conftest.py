"""Parity: two networks with the same weights compute the same outputs, gradients and running statistics."""

import pytest
import torch
from torch import nn

from dlzoo.pretrained import convert

TOLERANCE = 1e-5  # of the largest value of a tensor


def _randomised(net: nn.Module) -> nn.Module:
    """Float64, with every norm and bias at random: a zero bias or a mean of 0 would hide a mix-up.

    The weights keep the signal's size, so that 200 layers in evaluation neither vanish nor explode.
    """
    torch.manual_seed(0)
    net.double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.3)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data.normal_(std=(2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.data.normal_(std=0.3)
    return net


def _near(ours: torch.Tensor, theirs: torch.Tensor, what: str, floor: float = 0.0) -> None:
    scale = max(theirs.abs().max().item(), floor)
    assert scale > 0 and ours.shape == theirs.shape, what
    assert (ours - theirs).abs().max().item() <= TOLERANCE * scale, what


@pytest.fixture
def assert_parity():
    """assert_parity(name, ours, theirs, x): `theirs` is given random weights, `ours` takes them by way of `convert`.

    Then outputs and all gradients agree to 1e-5, in evaluation and in training, and after that the running statistics.
    """

    def check(name: str, ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
        _randomised(theirs)
        ours.double().load_state_dict(convert(name, theirs.state_dict(), ours.state_dict()))
        for mode in (False, True):
            results = []
            for net in (ours, theirs):
                net.train(mode).zero_grad()
                leaf = x.clone().requires_grad_()
                torch.manual_seed(1)  # of dropout
                out = net(leaf)
                (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
                results.append((out.detach(), leaf.grad))
            _near(results[0][0], results[1][0], f"output, train={mode}")
            _near(results[0][1], results[1][1], f"gradient of the image, train={mode}")
            gradients = dict(theirs.state_dict()) | {key: parameter.grad for key, parameter in theirs.named_parameters()}
            gradients = convert(name, gradients)
            # in training, what only shifts the input of a norm has no gradient but rounding; evaluation compares it
            floor = 1e-6 * max(parameter.grad.abs().max().item() for parameter in ours.parameters()) if mode else 0
            for key, parameter in ours.named_parameters():
                _near(parameter.grad, gradients[key], f"gradient of {key}, train={mode}", floor)
        after = convert(name, theirs.state_dict())
        assert all(key in after for key in ours.state_dict())
        for key, buffer in ours.named_buffers():
            _near(buffer, after[key], key)

    return check
