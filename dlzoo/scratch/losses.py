"""Losses: one number for how wrong a batch is, and the gradient that the walk back begins with.

Shapes: B batch, K classes.
"""

import numpy as np

__all__ = ["MeanSquaredError", "SoftmaxCrossEntropy", "softmax"]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits, over the last axis; the largest logit is taken off first, so that no exponential overflows."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class SoftmaxCrossEntropy:
    """Minus the logarithm of the probability of the right class, mean over the batch.

    Softmax and logarithm belong together: log softmax(z)_k = z_k - log sum exp(z) never takes the logarithm of a rounded 0,
    and the gradient of the two is as simple as a gradient gets: the probabilities minus the truth.

    Shape:
        forward: logits (B, K), labels (B,) of whole numbers -> a number; backward: () -> (B, K).
    """

    def forward(self, logits: np.ndarray, labels: np.ndarray) -> float:
        self.labels, self.probabilities = labels, softmax(logits)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(-log_probabilities[np.arange(len(labels)), labels].mean())

    def backward(self) -> np.ndarray:
        gradient = self.probabilities.copy()
        gradient[np.arange(len(self.labels)), self.labels] -= 1
        return gradient / len(self.labels)


class MeanSquaredError:
    """The mean of the squared differences over all numbers of the batch.

    Shape:
        forward: outputs and targets of one shape -> a number; backward: () -> that shape.
    """

    def forward(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        self.difference = outputs - targets
        return float((self.difference**2).mean())

    def backward(self) -> np.ndarray:
        return 2 * self.difference / self.difference.size
