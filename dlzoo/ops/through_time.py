"""How much of a gradient is left of it after many steps of a recurrent network.

A loss at the end is felt by an earlier state through every step between: the gradient is multiplied by one matrix a step. If
these shrink vectors, it vanishes, and the network cannot learn what lies far back; if they stretch them, it explodes. Both are
measured here, not assumed, for any step that maps an input and a state to the next state.

Source: Bengio, Simard, Frasconi 1994, Learning Long-Term Dependencies with Gradient Descent is Difficult,
    https://doi.org/10.1109/72.279181; Pascanu, Mikolov, Bengio 2012, https://arxiv.org/abs/1211.5063, section 2.
Differs from it: nothing.

Shapes: T steps, B batch, F features, H width of a state.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradients_through_time", "jacobians_through_time"]

Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def gradients_through_time(step: Step, inputs: Tensor, state: tuple[Tensor, ...], part: int = 0) -> Tensor:
    """The norm of d L / d s_t for each t, where L is the squared length of the last h, summed over the batch.

    A gradient that neither fades nor grows gives a flat line. Float64 shows what float32 rounds to zero.

    Args:
        step: an input (B, F) and a state -> the next state; h comes first.
        inputs: what it sees, step by step.
        state: before the first step, parts of (B, H).
        part: the one that is s: 0 for h, 1 for an LSTM's memory. Of two parts of one step, h counts as made from the memory:
            the gradient of the memory holds what flows through h, and not the other way round.

    Shape:
        inputs (T, B, F) -> (T,), after the first step, ..., after the last.

    Raises:
        ValueError: no step.
    """
    states = _unroll(step, inputs, state)
    gradients = torch.autograd.grad(states[-1][0].square().sum(), [after[part] for after in states])
    return torch.stack([gradient.norm() for gradient in gradients])


def jacobians_through_time(step: Step, inputs: Tensor, state: tuple[Tensor, ...], part: int = 0) -> Tensor:
    """The matrices d h_T / d s_t; `torch.linalg.matrix_norm(..., ord=2)` is the most that a gradient can be stretched by.

    Args:
        step: as for `gradients_through_time`; a sample of the batch must not see the others.
        inputs: the same.
        state: the same.
        part: the same.

    Shape:
        inputs (T, B, F) -> (T, B, H, H), the row of h_T first; the last ones are the identity where s is h.

    Raises:
        ValueError: no step.
    """
    states = _unroll(step, inputs, state)
    h = states[-1][0]
    rows = torch.eye(h.shape[1], dtype=h.dtype, device=h.device)[:, None].expand(-1, *h.shape)  # (H, B, H): one output each
    jacobians = torch.autograd.grad(h, [after[part] for after in states], rows, is_grads_batched=True)
    return torch.stack(jacobians).transpose(1, 2)


def _unroll(step: Step, inputs: Tensor, state: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The states after each step, with a graph between them even where no weight asks for one."""
    if not len(inputs):
        raise ValueError("inputs must hold at least 1 step, got 0")
    states = []
    with torch.enable_grad():
        state = tuple(part.detach().requires_grad_() for part in state)
        for x in inputs:
            state = step(x, state)
            states.append(state)
    return states
