"""Activations: functions of each number alone, without which a chain of dense layers would be one dense layer.

All act on arrays of any shape. The derivative of most of them is cheapest in terms of the output, so that is what they keep.
"""

import numpy as np

from dlzoo.scratch.layer import Layer

__all__ = ["GELU", "ReLU", "Sigmoid", "Tanh"]


class ReLU(Layer):
    """max(0, x). Nair, Hinton 2010, https://icml.cc/Conferences/2010/papers/432.pdf."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.positive  # at 0 itself there is no derivative: 0, as everybody takes it


class Sigmoid(Layer):
    """1 / (1 + exp(-x)), from 0 to 1."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        # exp of a large number overflows; exp(-|x|) never does, and gives both halves
        small = np.exp(-np.abs(x))
        self.y = np.where(x >= 0, 1, small) / (1 + small)
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.y * (1 - self.y)


class Tanh(Layer):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)), from -1 to 1."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * (1 - self.y**2)


class GELU(Layer):
    """x times the chance that a normal number is below x, in the approximation of Hendrycks, Gimpel 2016 by a tanh.

    Source: https://arxiv.org/abs/1606.08415, section 2: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """

    SCALE, CUBIC = np.sqrt(2 / np.pi), 0.044715

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        self.tanh = np.tanh(self.SCALE * (x + self.CUBIC * x**3))
        return 0.5 * x * (1 + self.tanh)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        inner = self.SCALE * (1 + 3 * self.CUBIC * self.x**2)
        return dy * 0.5 * (1 + self.tanh + self.x * (1 - self.tanh**2) * inner)
