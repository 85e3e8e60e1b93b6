"""What every layer is: it maps a batch forward, and hands a gradient backward.

A network is a chain of functions, y = f3(f2(f1(x))), so by the chain rule its gradient is a walk back along the chain: each
layer is given dL/dy, the gradient of the loss L with respect to its output, and returns dL/dx, that with respect to its input.
On the way it notes dL/dw for each parameter w of its own, which is all that an optimizer asks for.

Source: Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors, https://doi.org/10.1038/323533a0.
"""

from collections.abc import Iterator

import numpy as np

__all__ = ["Layer", "Parameter", "Sequential"]


class Parameter:
    """An array that is learned, and the gradient that the last backward pass found for it.

    Args:
        value: the array; optimizers change it in place.
    """

    def __init__(self, value: np.ndarray) -> None:
        self.value = value
        self.gradient = np.zeros_like(value)


class Layer:
    """A function of a batch. A layer that has parameters keeps them as attributes; `backward` follows its own `forward`."""

    training = True  # dropout and batch norm do one thing while they learn and another once they are used

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The output for a batch; what `backward` will need is kept."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """From dL/dy to dL/dx; dL/dw goes into the gradient of each parameter w."""
        raise NotImplementedError

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, in the order in which they were made."""
        yield from (value for value in vars(self).values() if isinstance(value, Parameter))

    def train(self, mode: bool = True) -> None:
        """Says whether what follows is training, or use."""
        self.training = mode


class Sequential(Layer):
    """Layers one behind the other.

    Args:
        layers: from the input to the output.
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def forward(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def parameters(self) -> Iterator[Parameter]:
        for layer in self.layers:
            yield from layer.parameters()

    def train(self, mode: bool = True) -> None:
        super().train(mode)
        for layer in self.layers:
            layer.train(mode)
