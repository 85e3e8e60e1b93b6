"""The perceptron and what grew from it: layers of weighted sums, each bent by an activation.

One layer draws straight borders: the perceptron, which with a softmax is logistic regression. A layer between, bent by
something that is not linear, lets the next one draw borders of any shape; its weights are found by passing the error back
through the chain rule. A picture is one long row of numbers here: which pixels are neighbours is something to be learned.

Source: Rosenblatt 1958, The perceptron, Psychological Review 65(6) (`hidden=[]`); Rumelhart, Hinton, Williams 1986, Learning
    representations by back-propagating errors, Nature 323 (hidden layers); Srivastava et al. 2014, Dropout, JMLR 15, section 4.
Differs from it: a softmax over classes, not a threshold (1958) or a squared error (1986); relu by default, where 1986 has the
    logistic function; the weights begin as He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.2, say for it.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLP", "Layer", "mlp"]

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Layer(nn.Module):
    """A weighted sum, an activation, dropout.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        dropout: share of the outputs that each training step sets to 0.
        activation: "relu", "tanh" or "sigmoid".

    Shape:
        (B, in_features) -> (B, out_features)
    """

    def __init__(
        self, in_features: int, out_features: int, dropout: float, activation: Literal["relu", "tanh", "sigmoid"]
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.linear(x)))


class MLP(nn.Module):
    """Hidden layers over the pixels of an image, and a linear head.

    Args:
        hidden: widths of the hidden layers; none at all is the perceptron.
        num_classes: width of the output.
        in_channels: channels of the image.
        side: height and width that the weights are made for; an image of another size is first averaged, or repeated, to it.
        dropout: share of the hidden outputs that each training step sets to 0.
        activation: of the hidden layers: "relu", "tanh" or "sigmoid".

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits.

    Raises:
        ValueError: a width or size below 1, dropout outside [0, 1), an unknown activation.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256, 256),
        num_classes: int = 10,
        in_channels: int = 3,
        side: int = 32,
        dropout: float = 0.0,
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
    ) -> None:
        super().__init__()
        if min([*hidden, num_classes, in_channels, side]) < 1:
            raise ValueError(
                f"hidden, num_classes, in_channels and side must be at least 1, got {list(hidden)}, {num_classes}, "
                f"{in_channels} and {side}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.side = side
        widths = [in_channels * side * side, *hidden]
        self.layers = nn.Sequential(*(Layer(before, after, dropout, activation) for before, after in pairwise(widths)))
        self.head = nn.Linear(widths[-1], num_classes)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.linear.weight, nonlinearity=activation)
            nn.init.zeros_(layer.linear.bias)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees: (B, in_channels, H, W) -> (B, width of the last hidden layer, or of the pixels)."""
        if x.shape[-2:] != (self.side, self.side):
            x = F.adaptive_avg_pool2d(x, self.side)  # (B, in_channels, side, side)
        return self.layers(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def mlp(
    hidden: Sequence[int] = (256, 256),
    num_classes: int = 10,
    in_channels: int = 3,
    side: int = 32,
    dropout: float = 0.0,
    activation: Literal["relu", "tanh", "sigmoid"] = "relu",
) -> MLP:
    """855,050 parameters on 32x32 colour images; hidden=[] has 30,730, and is the perceptron."""
    return MLP(hidden, num_classes, in_channels, side, dropout, activation)
