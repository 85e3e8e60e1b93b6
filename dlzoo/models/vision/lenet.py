"""LeNet-5: the convolutional network that read cheques.

Convolutions with shared weights find small strokes wherever they stand; averaging over 2x2 pixels makes the map smaller and
forgets where exactly; two hidden layers put the parts together. Every later image network has this outline.

Source: LeCun, Bottou, Bengio, Haffner 1998, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11),
    section II-B, figure 2. http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf
Differs from it, as the usual form does: the second convolution reads all six maps, not a choice of them (table I); pooling has
    no weights; plain tanh, not 1.7159 tanh(2 x / 3); ten logits with cross-entropy, not distances to drawn characters (RBF).
    In all 61,706 parameters for 60,000. `activation="relu"` is a later choice.

Shapes: B batch, C channels, H height, W width.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LeNet5", "lenet5"]

SIDE = 32  # of the image that the weights are made for
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class LeNet5(nn.Module):
    """5x5 convolution, average of 2x2, 5x5 convolution, average of 2x2, hidden layers of 120 and 84, a linear head.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        activation: after each convolution and hidden layer, "tanh" or "relu".

    Shape:
        (B, in_channels, H, W) -> (B, num_classes), logits. H and W are at most 32; a smaller image is put in the middle of
        zeros, as the paper puts its digits of 28x28.

    Raises:
        ValueError: a number below 1, an unknown activation; in `forward`, an image above 32x32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, activation: Literal["tanh", "relu"] = "tanh") -> None:
        super().__init__()
        if min(num_classes, in_channels) < 1:
            raise ValueError(f"num_classes and in_channels must be at least 1, got {num_classes} and {in_channels}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'tanh' or 'relu', got {activation!r}")
        act = ACTIVATIONS[activation]
        self.layers = nn.Sequential(
            *(nn.Conv2d(in_channels, 6, 5), act(), nn.AvgPool2d(2)),  # C1 and S2 of the paper
            *(nn.Conv2d(6, 16, 5), act(), nn.AvgPool2d(2)),  # C3 and S4
        )
        # C5 is a convolution in the paper, of the size of its whole input: a linear layer
        self.hidden = nn.Sequential(nn.Linear(16 * 5 * 5, 120), act(), nn.Linear(120, 84), act())
        self.head = nn.Linear(84, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                if activation == "tanh":
                    nn.init.xavier_uniform_(
                        module.weight, gain=nn.init.calculate_gain("tanh") if module is not self.head else 1
                    )
                else:
                    nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Tensor:
        """The map before the hidden layers: (B, in_channels, H, W) -> (B, 16, 5, 5)."""
        height, width = x.shape[2:]
        if height > SIDE or width > SIDE:
            raise ValueError(f"LeNet-5 reads images of at most {SIDE}x{SIDE}, got {height}x{width}")
        if (height, width) != (SIDE, SIDE):
            top, left = (SIDE - height) // 2, (SIDE - width) // 2
            x = F.pad(x, (left, SIDE - width - left, top, SIDE - height - top))  # (B, in_channels, 32, 32)
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.features(x).flatten(1)))  # (B, num_classes)


def lenet5(num_classes: int = 10, in_channels: int = 1, activation: Literal["tanh", "relu"] = "tanh") -> LeNet5:
    """61,706 parameters (paper: 60,000); MNIST in the paper: 0.95 % error, 0.8 % with distorted images (figure 9)."""
    return LeNet5(num_classes, in_channels, activation)
