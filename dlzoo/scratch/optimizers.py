"""Optimizers: how parameters follow their gradients downhill.

g is the gradient of a parameter w, lr the rate. Each class changes the values in place, and keeps its own memory of the
gradients that it has seen: an array or two for each parameter.
"""

from collections.abc import Iterable

import numpy as np

from dlzoo.scratch.layer import Parameter

__all__ = ["SGD", "Adam", "Momentum", "RMSprop"]


class SGD:
    """w <- w - lr g. Robbins, Monro 1951, https://doi.org/10.1214/aoms/1177729586.

    Args:
        parameters: what is learned.
        lr: the rate.
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float = 0.1) -> None:
        self.parameters, self.lr = list(parameters), lr

    def step(self) -> None:
        for parameter in self.parameters:
            parameter.value -= self.lr * parameter.gradient


class Momentum(SGD):
    """v <- m v + g; w <- w - lr v: a ball that rolls, instead of a walker who forgets. Polyak 1964.

    Args:
        parameters: what is learned.
        lr: the rate.
        momentum: m, how much of the velocity stays.
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__(parameters, lr)
        self.momentum = momentum
        self.velocity = [np.zeros_like(parameter.value) for parameter in self.parameters]

    def step(self) -> None:
        for parameter, v in zip(self.parameters, self.velocity, strict=True):
            v *= self.momentum
            v += parameter.gradient
            parameter.value -= self.lr * v


class RMSprop(SGD):
    """s <- a s + (1 - a) g^2; w <- w - lr g / (sqrt(s) + eps): each parameter in units of its own gradient.

    Source: Tieleman, Hinton 2012, Coursera lecture 6.5.

    Args:
        parameters: what is learned.
        lr: the rate.
        alpha: a, how much of the running mean stays.
        eps: keeps the quotient finite where nothing has happened.
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float = 1e-3, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(parameters, lr)
        self.alpha, self.eps = alpha, eps
        self.squares = [np.zeros_like(parameter.value) for parameter in self.parameters]

    def step(self) -> None:
        for parameter, s in zip(self.parameters, self.squares, strict=True):
            s *= self.alpha
            s += (1 - self.alpha) * parameter.gradient**2
            parameter.value -= self.lr * parameter.gradient / (np.sqrt(s) + self.eps)


class Adam(SGD):
    """RMSprop with momentum; both running means begin at 0 and are scaled up for it: divided by 1 - b^t in step t.

    Source: Kingma, Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1.

    Args:
        parameters: what is learned.
        lr: the rate.
        betas: how much of the mean of g, and of that of g^2, stays.
        eps: keeps the quotient finite where nothing has happened.
    """

    def __init__(
        self, parameters: Iterable[Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(parameters, lr)
        self.betas, self.eps, self.steps = betas, eps, 0
        self.means = [np.zeros_like(parameter.value) for parameter in self.parameters]
        self.squares = [np.zeros_like(parameter.value) for parameter in self.parameters]

    def step(self) -> None:
        self.steps += 1
        b1, b2 = self.betas
        for parameter, m, s in zip(self.parameters, self.means, self.squares, strict=True):
            m *= b1
            m += (1 - b1) * parameter.gradient
            s *= b2
            s += (1 - b2) * parameter.gradient**2
            mean, square = m / (1 - b1**self.steps), s / (1 - b2**self.steps)
            parameter.value -= self.lr * mean / (np.sqrt(square) + self.eps)
