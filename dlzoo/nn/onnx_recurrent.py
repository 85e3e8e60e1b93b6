"""A stack of recurrent layers as ONNX writes it: one node a layer, for any batch and any length.

Left to itself, torch's exporter writes a loop over steps in place of an LSTM or GRU, and fixes the length of a plain RNN. ONNX
has operators for all three, which runtimes have kernels for. The weights stay where they are; only their order differs.

Source: the ONNX specification, operators RNN, LSTM and GRU, version 14, https://onnx.ai/onnx/operators/.

Shapes: T steps, B batch, F features, H hidden, D directions, G gates, N = layers * D.
"""

import torch
from torch import Tensor, nn

__all__ = ["onnx_recurrent"]

ORDER = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}  # ONNX's order of the gates, in numbers of torch's
VERSION = 14  # of the three operators; later ones add nothing but types


def onnx_recurrent(
    kernel: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What `kernel` computes in evaluation mode; only torch.onnx.export can call it.

    Args:
        kernel: nn.RNN (with tanh), nn.LSTM or nn.GRU, which need not be batch-first.
        x: sequences, the steps first.
        state: to begin with, (h,) or (h, c).
        lengths: (B,), how many steps of each sequence are real.

    Shape:
        (T, B, F), parts of (N, B, H) -> (T, B, D * H), parts of (N, B, H).
    """
    name, hidden, directions = type(kernel).__name__, kernel.hidden_size, 2 if kernel.bidirectional else 1
    attributes = {"hidden_size": hidden, "direction": "bidirectional" if kernel.bidirectional else "forward"}
    if name == "GRU":
        attributes["linear_before_reset"] = 1  # torch resets U h, not h
    if lengths is not None:
        lengths = lengths.to(torch.int32)
    last = []
    for layer in range(kernel.num_layers):
        rows = slice(layer * directions, (layer + 1) * directions)
        w, u, b_w, b_u = (
            torch.stack([_gates(weight, name) for weight in weights]) for weights in zip(*kernel.all_weights[rows], strict=True)
        )  # (D, G * H, F), (D, G * H, H), and two of (D, G * H)
        begin = [part[rows] for part in state]
        steps, batch = x.shape[:2]
        y, *end = torch.onnx.ops.symbolic_multi_out(
            name,
            [x, w, u, torch.cat([b_w, b_u], 1), lengths, *begin],
            attributes,
            dtypes=[x.dtype] * (1 + len(state)),
            shapes=[(steps, directions, batch, hidden), *[(directions, batch, hidden)] * len(state)],
            version=VERSION,
        )
        x = y.transpose(1, 2).flatten(2)  # (T, B, D * H)
        last.append(end)
    return x, tuple(torch.cat(parts) for parts in zip(*last, strict=True))


def _gates(weight: Tensor, name: str) -> Tensor:
    """The rows of a weight or bias in ONNX's order of gates; as slices, which the exporter computes once and for all."""
    height = len(weight) // len(ORDER[name])
    return torch.cat([weight[gate * height : (gate + 1) * height] for gate in ORDER[name]])
