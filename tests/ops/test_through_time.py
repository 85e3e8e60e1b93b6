"""Gradients through time: powers of a matrix where the network is linear, and the figure that the course opens with."""

import pytest
import torch

from dlzoo.nn.recurrent import GRU, LSTM, RNN
from dlzoo.ops.through_time import gradients_through_time, jacobians_through_time

STEPS, BATCH, WIDTH = 6, 3, 4


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_a_linear_network_multiplies_by_its_matrix():
    torch.manual_seed(0)
    u, inputs, h = drawn(WIDTH, WIDTH), drawn(STEPS, BATCH, WIDTH), drawn(BATCH, WIDTH)

    def step(x, state):
        return (x + state[0] @ u.T,)

    jacobians = jacobians_through_time(step, inputs, (h,))
    assert jacobians.shape == (STEPS, BATCH, WIDTH, WIDTH)
    for t in range(STEPS):
        power = torch.linalg.matrix_power(u, STEPS - 1 - t)
        torch.testing.assert_close(jacobians[t], power.expand_as(jacobians[t]))
    norms = gradients_through_time(step, inputs, (h,))
    for x in inputs:
        h = x + h @ u.T
    for t, norm in enumerate(norms):
        torch.testing.assert_close(norm, (2 * h @ torch.linalg.matrix_power(u, STEPS - 1 - t)).norm())


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU], ids=["rnn", "lstm", "gru"])
def test_both_functions_agree_and_follow_a_nudge(kind):
    """The gradient is 2 h_T J, and J tells where h_T moves when a state is nudged."""
    torch.manual_seed(0)
    net = kind(2, WIDTH).double()
    inputs, state = drawn(STEPS, BATCH, 2), tuple(part[0] for part in net.zeros(BATCH))

    def run(begin, steps):
        for x in steps:
            begin = net.step(x, begin)
        return begin

    h = run(state, inputs)[0].detach()
    for part in range(net.PARTS):
        jacobians = jacobians_through_time(net.step, inputs, state, part)
        norms = gradients_through_time(net.step, inputs, state, part)
        torch.testing.assert_close((2 * torch.einsum("bi,tbij->tbj", h, jacobians)).flatten(1).norm(dim=1), norms)
    if net.PARTS == 1:
        middle = run(state, inputs[:3])[0].detach()
        nudge = 1e-6 * drawn(BATCH, WIDTH)
        moved = run((middle + nudge,), inputs[3:])[0] - run((middle - nudge,), inputs[3:])[0]
        jacobian = jacobians_through_time(net.step, inputs, state)[2]
        torch.testing.assert_close(torch.einsum("bij,bj->bi", jacobian, 2 * nudge), moved.detach(), rtol=1e-6, atol=1e-14)


def test_the_last_jacobian_is_the_identity():
    net = RNN(2, WIDTH).double()
    jacobians = jacobians_through_time(net.step, drawn(STEPS, BATCH, 2), (drawn(BATCH, WIDTH),))
    assert torch.equal(jacobians[-1], torch.eye(WIDTH, dtype=torch.float64).expand(BATCH, -1, -1))


def ratio(net, part):
    """How much of the gradient at the last state reaches the first one, 99 steps before."""
    torch.manual_seed(1)
    inputs, state = drawn(100, 8, net.features), tuple(layer[0] for layer in net.double().zeros(8))
    norms = gradients_through_time(net.step, inputs, state, part)
    return (norms[0] / norms[-1]).item()


def test_a_memory_keeps_the_gradient_only_if_its_gates_are_open():
    """At the usual initialisation an LSTM's gradient vanishes as a GRU's does; it is the forget bias that keeps it."""
    torch.manual_seed(0)
    assert ratio(RNN(1, 64), 0) < 1e-15
    assert 1e-30 < ratio(GRU(1, 64), 0) < 1e-15
    assert 1e-30 < ratio(LSTM(1, 64, forget_bias=None), 1) < 1e-15
    assert 1e-10 < ratio(LSTM(1, 64, forget_bias=1.0), 1) < 1e-5
    assert 0.1 < ratio(LSTM(1, 64, forget_bias=2.0), 1) < 1


def test_refuses_an_empty_sequence():
    for function in (gradients_through_time, jacobians_through_time):
        with pytest.raises(ValueError, match="at least 1 step, got 0"):
            function(RNN(2, 3).step, torch.zeros(0, 1, 2), (torch.zeros(1, 3),))
