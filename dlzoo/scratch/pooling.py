"""Pooling: a patch of an image becomes one number, its largest or its mean. There is nothing to learn in it.

Shapes: B batch, C channels, H height, W width, K side of the patch, h and w the size of the output.
"""

import numpy as np

from dlzoo.scratch.convolution import col2im, im2col
from dlzoo.scratch.layer import Layer

__all__ = ["AvgPool2d", "MaxPool2d"]


class MaxPool2d(Layer):
    """The largest number of each patch. Backward, it alone gets the gradient: no other number could have changed the output.

    Args:
        size: K.
        stride: pixels between two patches; None takes K, so that they do not overlap.

    Shape:
        (B, C, H, W) -> (B, C, h, w), h = (H - K) // stride + 1.
    """

    def __init__(self, size: int, stride: int | None = None) -> None:
        self.size, self.stride = size, stride or size

    def forward(self, x: np.ndarray) -> np.ndarray:
        patches = im2col(x, self.size, self.stride)
        self.x_shape, self.patches_shape = x.shape, patches.shape
        rows = patches.reshape(*patches.shape[:4], -1)  # (B, h, w, C, K K)
        self.largest = rows.argmax(axis=-1)[..., None]  # of equal ones the first
        return np.take_along_axis(rows, self.largest, axis=-1)[..., 0].transpose(0, 3, 1, 2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        rows = np.zeros((*self.patches_shape[:4], self.size**2), dy.dtype)
        np.put_along_axis(rows, self.largest, dy.transpose(0, 2, 3, 1)[..., None], axis=-1)
        return col2im(rows.reshape(self.patches_shape), self.x_shape, self.stride)


class AvgPool2d(Layer):
    """The mean of each patch. Backward, every number of it gets an equal share of the gradient.

    Args:
        size: K.
        stride: pixels between two patches; None takes K, so that they do not overlap.

    Shape:
        (B, C, H, W) -> (B, C, h, w), h = (H - K) // stride + 1.
    """

    def __init__(self, size: int, stride: int | None = None) -> None:
        self.size, self.stride = size, stride or size

    def forward(self, x: np.ndarray) -> np.ndarray:
        patches = im2col(x, self.size, self.stride)
        self.x_shape, self.patches_shape = x.shape, patches.shape
        return patches.mean(axis=(4, 5)).transpose(0, 3, 1, 2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        share = dy.transpose(0, 2, 3, 1)[..., None, None] / self.size**2  # (B, h, w, C, 1, 1)
        return col2im(np.broadcast_to(share, self.patches_shape), self.x_shape, self.stride)
