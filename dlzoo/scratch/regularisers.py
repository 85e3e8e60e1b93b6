"""Batch norm and dropout: layers that do one thing in training and another in use.

Shapes: B batch, C channels; what is normalised is (B, C) or (B, C, H, W), each channel by itself.
"""

import numpy as np

from dlzoo.scratch.layer import Layer, Parameter

__all__ = ["BatchNorm", "Dropout"]


class BatchNorm(Layer):
    """Gives each channel mean 0 and variance 1 over the batch, then a scale and a shift that are learned.

    In use there may be no batch: running means of what training saw take its place. In training the mean and the variance are
    functions of every sample, so each sample's gradient has a part that goes through them; `backward` is that sum, shortened.

    Source: Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1 and section 3.1.

    Args:
        channels: C.
        momentum: how much of the running statistics each batch replaces.
        eps: added to the variance, for channels that are constant.

    Shape:
        (B, C) or (B, C, H, W) -> the same.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        self.scale, self.shift = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.mean, self.variance = np.zeros(channels), np.ones(channels)
        self.momentum, self.eps = momentum, eps

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.axes = (0, *range(2, x.ndim))  # all but the channels
        self.count = x.size // x.shape[1]  # numbers of each channel
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = x.mean(axis=self.axes), x.var(axis=self.axes)
            self.mean = (1 - self.momentum) * self.mean + self.momentum * mean
            # the variance of all data, as this sample of them estimates it: divided by n - 1
            unbiased = variance * self.count / max(self.count - 1, 1)
            self.variance = (1 - self.momentum) * self.variance + self.momentum * unbiased
        self.deviation = np.sqrt(_along(variance, x.ndim) + self.eps)
        self.normal = (x - _along(mean, x.ndim)) / self.deviation
        return _along(self.scale.value, x.ndim) * self.normal + _along(self.shift.value, x.ndim)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.scale.gradient = (dy * self.normal).sum(axis=self.axes)
        self.shift.gradient = dy.sum(axis=self.axes)
        dx = dy * _along(self.scale.value, dy.ndim)
        if self.training:
            # to move all of a channel alike, or to stretch it, changes no output: these two parts of the gradient are taken out
            moves = dx.mean(axis=self.axes, keepdims=True)
            stretches = self.normal * (dx * self.normal).mean(axis=self.axes, keepdims=True)
            dx = dx - moves - stretches
        return dx / self.deviation


class Dropout(Layer):
    """In training a number becomes 0 with probability p, and what is left is larger by 1 / (1 - p); in use nothing happens.

    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html. Differs from it: scaled up in training
    instead of down in use.

    Args:
        p: the probability.
        rng: draws which.

    Shape:
        any -> the same.

    Raises:
        ValueError: p is not from 0 to below 1.
    """

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p must be from 0 to below 1, got {p}")
        self.p, self.rng = p, rng

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.mask = (self.rng.random(x.shape) >= self.p) / (1 - self.p) if self.training else np.ones_like(x)
        return x * self.mask

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.mask


def _along(channels: np.ndarray, dimensions: int) -> np.ndarray:
    """(C,) -> (1, C, 1, 1), to meet a batch of images, or (1, C)."""
    return channels.reshape(1, -1, *[1] * (dimensions - 2))
