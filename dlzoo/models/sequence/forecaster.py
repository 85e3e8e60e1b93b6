"""A recurrent network reads the past of a series and answers with its future, all steps of it at once.

The encoder reads the window from its first step to its last, or from both ends; what it knows at its end is one vector. One
linear map turns that into the values of every step to come (the direct strategy). No forecast is fed back, so that no error is
carried from one step to the next; the price is that the head has weights of its own for each step.

Source: Ben Taieb et al. 2011, A Review and Comparison of Strategies for Multi-Step Ahead Time Series Forecasting,
    https://arxiv.org/abs/1108.3259, section 2 (the strategies; this is "MIMO"); Hochreiter, Schmidhuber 1997,
    https://doi.org/10.1162/neco.1997.9.8.1735 (the encoder).
Differs from it: the review compares small feed-forward networks; `persistence` is ours.

Shapes: B batch, T steps of the past, F features, P steps to come, K targets, H hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.recurrent import LSTM, Recurrent

__all__ = ["Forecaster", "forecaster_lstm"]


class Forecaster(nn.Module):
    """A recurrent encoder, and a linear map from its last outputs to every target at every step to come.

    Args:
        recurrent: the encoder; its features are F. A bidirectional one reads the window from both ends.
        horizon: P.
        targets: K, the features that are forecast; they are the first K of the input.
        dropout: how likely a number in front of the head is zeroed, in training.
        persistence: the network forecasts by how much each target will differ from its last value, not the value itself.

    Shape:
        (B, T, F) -> (B, P, K).

    Raises:
        ValueError: horizon or targets is below 1, there are more targets than features, dropout is not from 0 to 1.
    """

    def __init__(
        self, recurrent: Recurrent, horizon: int, targets: int = 1, dropout: float = 0.0, persistence: bool = False
    ) -> None:
        super().__init__()
        for name, value in (("horizon", horizon), ("targets", targets)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if targets > recurrent.features:
            raise ValueError(f"targets must be among the features, {recurrent.features}, got {targets}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, got {dropout}")
        self.horizon, self.targets, self.dropout, self.persistence = horizon, targets, dropout, persistence
        self.recurrent = recurrent
        self.head = nn.Linear(recurrent.width, horizon * targets)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer knows at the end of each of its directions: (B, T, F) -> (B, H), twice as wide for two."""
        _, state = self.recurrent(x)
        ends = state[0][-self.recurrent.directions :]  # (D, B, H)
        return torch.cat(ends.unbind(0), 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(self.features(x), self.dropout, self.training)
        y = self.head(y).unflatten(1, (self.horizon, self.targets))  # (B, P, K)
        return y + x[:, -1:, : self.targets] if self.persistence else y


def forecaster_lstm(
    features: int = 1,
    horizon: int = 24,
    targets: int = 1,
    width: int = 64,
    layers: int = 1,
    dropout: float = 0.0,
    persistence: bool = False,
    forget_bias: float = 1.0,
) -> Forecaster:
    """18,712 parameters, 256 more for each further feature."""
    return Forecaster(LSTM(features, width, layers, dropout, forget_bias=forget_bias), horizon, targets, dropout, persistence)
