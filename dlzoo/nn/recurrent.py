"""Recurrent layers: a state is carried from step to step, and each step changes it by what it sees.

RNN: the next state is a squashed linear map of the input and of the state. LSTM: beside the state lies a memory that is only
scaled and added to, so that a gradient comes back through many steps; three gates say what is kept, written and shown. GRU: the
same thought with two gates and no second memory. Each class has its equations in `cell`. `equations` runs them in a loop, for
reading, for tests and for gradients through time; `forward` runs torch's fused kernel over the same weights.

Source: Elman 1990, Finding Structure in Time, https://doi.org/10.1207/s15516709cog1402_1; Hochreiter, Schmidhuber 1997, Long
    Short-Term Memory, https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gate of Gers et al. 2000,
    https://doi.org/10.1162/089976600300015015; Cho et al. 2014, https://arxiv.org/abs/1406.1078, appendix A (GRU); Schuster,
    Paliwal 1997, https://doi.org/10.1109/78.650093 (both directions); Jozefowicz et al. 2015,
    https://proceedings.mlr.press/v37/jozefowicz15.html (forget bias of 1).
Differs from it: two biases, as the fused kernels have; the GRU resets U h, not h, as they do.

Shapes: B batch, T steps, F features, H hidden, D directions, N = layers * D, the forward one of each layer first.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlzoo.nn.onnx_recurrent import onnx_recurrent

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "State", "Weights"]

State = tuple[Tensor, ...]  # (h,), and (h, c) of an LSTM
Weights = list[Tensor]  # W on the input, U on the state, and a bias of each


class Recurrent(nn.Module):
    """A stack of recurrent layers; what they compute at each step is told by `cell`, in RNN, LSTM and GRU.

    Args:
        features: F, of each step of the input.
        hidden: H, of each layer and direction.
        layers: each reads the outputs of the one below.
        dropout: how likely an output is zeroed on its way to the next layer, in training.
        bidirectional: a second set of weights reads from the end, and both outputs lie side by side.

    Shape:
        (B, T, F) -> (B, T, D * H) and the last state, each part (N, B, H); an initial state is of the same shapes.

    Raises:
        ValueError: a size is below 1, dropout is not from 0 to 1.
    """

    KERNEL: ClassVar[type[nn.RNNBase]]
    PARTS: ClassVar[int] = 1  # tensors of a state

    def __init__(self, features: int, hidden: int, layers: int = 1, dropout: float = 0.0, bidirectional: bool = False) -> None:
        super().__init__()
        for name, value in (("features", features), ("hidden", hidden), ("layers", layers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, got {dropout}")
        self.features, self.hidden, self.layers = features, hidden, layers
        self.dropout = dropout if layers > 1 else 0.0
        self.directions = 2 if bidirectional else 1
        self.kernel = self.KERNEL(features, hidden, layers, batch_first=True, dropout=self.dropout, bidirectional=bidirectional)

    @property
    def width(self) -> int:
        """D * H, of each output."""
        return self.directions * self.hidden

    @staticmethod
    def cell(x: Tensor, state: State, weights: Weights) -> State:
        """One step of one layer: (B, F) and parts of (B, H) -> parts of (B, H); the first is the output."""
        raise NotImplementedError

    def weights(self, layer: int = 0, backward: bool = False) -> Weights:
        """W, U and their biases, of one layer and direction."""
        return self.kernel.all_weights[layer * self.directions + backward]

    def step(self, x: Tensor, state: State, layer: int = 0) -> State:
        """`cell` with the weights of a layer, read forwards."""
        return self.cell(x, state, self.weights(layer))

    def zeros(self, batch: int) -> State:
        """The state in which a sequence begins, in the type and on the device of the weights: parts of (N, B, H)."""
        like = self.weights()[0]
        return tuple(like.new_zeros(self.layers * self.directions, batch, self.hidden) for _ in range(self.PARTS))

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """The outputs and the last state, by the fused kernel.

        Args:
            x: the sequences.
            state: to begin with; zeros without it.
            lengths: (B,), how many steps of each sequence are real. Outputs behind them are zero, the last state is that of the
                last real step, and the backward direction begins there.
        """
        if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
            state = self.zeros(x.shape[0]) if state is None else state
            y, last = onnx_recurrent(self.kernel, x.transpose(0, 1), state, lengths)
            return y.transpose(0, 1), last
        begin = state[0] if state is not None and self.PARTS == 1 else state
        if lengths is None:
            y, last = self.kernel(x, begin)
        else:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, last = self.kernel(packed, begin)
            y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return y, last if isinstance(last, tuple) else (last,)

    def equations(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """What `forward` computes, step by step: slow, and open to be read and differentiated anywhere."""
        state = self.zeros(x.shape[0]) if state is None else state
        real = None if lengths is None else torch.arange(x.shape[1], device=x.device)[:, None] < lengths.to(x.device)  # (T, B)
        x, last = x.transpose(0, 1), []
        for layer in range(self.layers):
            outputs = []
            for backward in range(self.directions):
                begin = tuple(part[layer * self.directions + backward] for part in state)
                y, end = self._run(x, begin, self.weights(layer, bool(backward)), real, bool(backward))
                outputs.append(y)
                last.append(end)
            x = torch.cat(outputs, 2)  # (T, B, D * H)
            if layer < self.layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x.transpose(0, 1), tuple(torch.stack(parts) for parts in zip(*last, strict=True))

    def _run(self, x: Tensor, state: State, weights: Weights, real: Tensor | None, backward: bool) -> tuple[Tensor, State]:
        """One layer in one direction: (T, B, F) -> (T, B, H) and the last state."""
        outputs = []
        for t in reversed(range(len(x))) if backward else range(len(x)):
            after = self.cell(x[t], state, weights)
            output = after[0]
            if real is not None:  # a step of padding leaves the state as it is
                now = real[t, :, None]
                after = tuple(torch.where(now, new, old) for new, old in zip(after, state, strict=True))
                output = output * now
            state = after
            outputs.append(output)
        return torch.stack(outputs[::-1] if backward else outputs), state


class RNN(Recurrent):
    """Elman's network: h = tanh(W x + U h). Arguments, shapes and errors are those of `Recurrent`."""

    KERNEL = nn.RNN

    @staticmethod
    def cell(x: Tensor, state: State, weights: Weights) -> State:
        (h,), (w, u, b_w, b_u) = state, weights
        return (torch.tanh(F.linear(x, w, b_w) + F.linear(h, u, b_u)),)


class LSTM(Recurrent):
    """Long short-term memory: c = f c + i g, h = o tanh(c). Shapes are those of `Recurrent`.

    Args:
        features: F, of each step of the input.
        hidden: H, of each layer and direction.
        layers: each reads the outputs of the one below.
        dropout: how likely an output is zeroed on its way to the next layer, in training.
        bidirectional: a second set of weights reads from the end, and both outputs lie side by side.
        forget_bias: of the forget gates at the start, both biases together: with 1 a memory fades by sigmoid(1) = 0.73 a step,
            with 0 by a half. None: at random, as torch has it, which is near 0.

    Raises:
        ValueError: as `Recurrent`.
    """

    KERNEL, PARTS = nn.LSTM, 2

    def __init__(
        self,
        features: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        forget_bias: float | None = 1.0,
    ) -> None:
        super().__init__(features, hidden, layers, dropout, bidirectional)
        if forget_bias is not None:
            with torch.no_grad():
                for *_, b_w, b_u in self.kernel.all_weights:
                    b_w[hidden : 2 * hidden] = forget_bias
                    b_u[hidden : 2 * hidden] = 0

    @staticmethod
    def cell(x: Tensor, state: State, weights: Weights) -> State:
        (h, c), (w, u, b_w, b_u) = state, weights
        i, f, g, o = (F.linear(x, w, b_w) + F.linear(h, u, b_u)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # forget, and write
        return o.sigmoid() * c.tanh(), c


class GRU(Recurrent):
    """Gated recurrent unit: h = z h + (1 - z) n. Arguments, shapes and errors are those of `Recurrent`."""

    KERNEL = nn.GRU

    @staticmethod
    def cell(x: Tensor, state: State, weights: Weights) -> State:
        (h,), (w, u, b_w, b_u) = state, weights
        r_x, z_x, n_x = F.linear(x, w, b_w).chunk(3, dim=1)
        r_h, z_h, n_h = F.linear(h, u, b_u).chunk(3, dim=1)
        r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()  # reset, and keep
        n = torch.tanh(n_x + r * n_h)
        return (z * h + (1 - z) * n,)
