"""The dense layer: every output is a weighted sum of all inputs.

Shapes: B batch, I inputs, O outputs.
"""

import numpy as np

from dlzoo.scratch.layer import Layer, Parameter

__all__ = ["Dense", "Flatten"]


class Dense(Layer):
    """y = x W + b.

    The weights begin as He et al. 2015 (https://arxiv.org/abs/1502.01852) draw them: with variance 2 / I, and a ReLU behind
    the layer, the signal keeps its size however deep the network is.

    Args:
        inputs: I.
        outputs: O.
        rng: draws the first weights.

    Shape:
        (B, I) -> (B, O).
    """

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        self.weight = Parameter(rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)))
        self.bias = Parameter(np.zeros(outputs))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return x @ self.weight.value + self.bias.value

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # w_io meets x_bi on the way to y_bo, once for each sample b: their contributions add up, which is what x^T dy sums
        self.weight.gradient = self.x.T @ dy
        self.bias.gradient = dy.sum(axis=0)
        return dy @ self.weight.value.T


class Flatten(Layer):
    """(B, ...) -> (B, the product of the rest): what stands between a convolution and a dense layer."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy.reshape(self.shape)
