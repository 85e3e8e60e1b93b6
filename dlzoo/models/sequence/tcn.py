"""Temporal convolutional network: a series is read by convolutions that look back only, each level twice as far as the last.

A causal convolution is padded on the left alone, so that nothing of step t comes from a later one. Dilation leaves gaps between
the steps that a kernel sees; with gaps that double from level to level, the past that is in sight grows as 2 to the number of
levels, while the weights grow as that number. Each level is a residual block, and all steps are computed at once.

Source: Bai, Kolter, Koltun 2018, An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling,
    https://arxiv.org/abs/1803.01271, section 3; weight norm: Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868.
Differs from it: weights begin as He et al. 2015 have them. The authors' code means to draw them with a deviation of 0.01, which
    its weight norm overwrites with torch's default. Forecasting, from the last step, is ours.

Shapes: B batch, T steps, F features, C channels, k kernel size, d dilation, L levels, P steps to come, K targets.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TCN", "CausalConv", "TCNForecaster", "TemporalBlock", "tcn"]


class CausalConv(nn.Module):
    """A dilated convolution that sees t, t - d, ..., t - (k - 1) d; each filter has a direction and a length (weight norm).

    Args:
        in_channels: of the input.
        out_channels: filters.
        kernel_size: k.
        dilation: d, from one step that the kernel sees to the next.

    Shape:
        (B, in_channels, T) -> (B, out_channels, T).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self.padding = dilation, (kernel_size - 1) * dilation
        self.direction = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.length = nn.Parameter(torch.empty(out_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_normal_(self.direction, nonlinearity="relu")
        with torch.no_grad():
            self.length.copy_(self.direction.norm(dim=(1, 2), keepdim=True))

    @property
    def weight(self) -> Tensor:
        """(out_channels, in_channels, k), filters of the given lengths, whatever the lengths of their directions."""
        return self.direction * (self.length / self.direction.norm(dim=(1, 2), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(F.pad(x, (self.padding, 0)), self.weight, self.bias, dilation=self.dilation)


class TemporalBlock(nn.Module):
    """Two causal convolutions of one dilation, each with relu and dropout, beside a shortcut: relu(x + f(x)).

    Args:
        in_channels: of the input; where they are not `out_channels`, a 1-wide convolution is the shortcut.
        out_channels: of the output.
        kernel_size: k.
        dilation: d.
        dropout: how likely a channel is zeroed, over all steps, in training.

    Shape:
        (B, in_channels, T) -> (B, out_channels, T).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = CausalConv(in_channels, out_channels, kernel_size, dilation)
        self.conv2 = CausalConv(out_channels, out_channels, kernel_size, dilation)
        self.shortcut = nn.Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout1d(F.relu(self.conv1(x)), self.dropout, self.training)
        y = F.dropout1d(F.relu(self.conv2(y)), self.dropout, self.training)
        return F.relu(self.shortcut(x) + y)


class TCN(nn.Module):
    """Temporal blocks of dilation 1, 2, 4, ...: a vector for each step, made of that step and those before it.

    Args:
        features: F, of each step.
        widths: C of each level; there are L of them.
        kernel_size: k.
        dropout: of each block.

    Shape:
        (B, T, F) -> (B, T, C), the last level's channels.

    Raises:
        ValueError: no level, a size is below 1, a kernel of a single step, dropout is not from 0 to 1.
    """

    def __init__(self, features: int, widths: Sequence[int], kernel_size: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        for name, value in (("features", features), ("levels", len(widths)), ("widths", min(widths, default=1))):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if kernel_size < 2:
            raise ValueError(f"kernel_size must be at least 2, or no step sees another, got {kernel_size}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, got {dropout}")
        self.kernel_size = kernel_size
        channels = (features, *widths)
        self.blocks = nn.Sequential(
            *(
                TemporalBlock(channels[level], channels[level + 1], kernel_size, 2**level, dropout)
                for level in range(len(widths))
            )
        )

    @property
    def receptive_field(self) -> int:
        """How many steps one output sees, itself included: 1 + 2 (k - 1) (1 + 2 + 4 + ...) = 1 + 2 (k - 1) (2^L - 1)."""
        return 1 + 2 * (self.kernel_size - 1) * (2 ** len(self.blocks) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x.transpose(1, 2)).transpose(1, 2)


class TCNForecaster(nn.Module):
    """A temporal convolutional network, and a linear map from its last step to every target at every step to come.

    Args:
        encoder: reads the past; what lies further back than its receptive field is not seen.
        horizon: P.
        targets: K, the features that are forecast; they are the first K of the input.
        persistence: the network forecasts by how much each target will differ from its last value, not the value itself.

    Shape:
        (B, T, F) -> (B, P, K).

    Raises:
        ValueError: horizon or targets is below 1, there are more targets than features.
    """

    def __init__(self, encoder: TCN, horizon: int, targets: int = 1, persistence: bool = False) -> None:
        super().__init__()
        for name, value in (("horizon", horizon), ("targets", targets)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        features, width = encoder.blocks[0].conv1.direction.shape[1], encoder.blocks[-1].conv2.direction.shape[0]
        if targets > features:
            raise ValueError(f"targets must be among the features, {features}, got {targets}")
        self.horizon, self.targets, self.persistence = horizon, targets, persistence
        self.encoder = encoder
        self.head = nn.Linear(width, horizon * targets)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.encoder(x)[:, -1]).unflatten(1, (self.horizon, self.targets))  # (B, P, K)
        return y + x[:, -1:, : self.targets] if self.persistence else y


def tcn(
    features: int = 1,
    horizon: int = 24,
    targets: int = 1,
    width: int = 32,
    levels: int = 5,
    kernel_size: int = 3,
    dropout: float = 0.0,
    persistence: bool = False,
) -> TCNForecaster:
    """29,240 parameters, 128 more for each further feature; it sees 125 steps, and twice as many with each further level."""
    return TCNForecaster(TCN(features, (width,) * levels, kernel_size, dropout), horizon, targets, persistence)
