"""Convolution as one matrix product: im2col.

A convolution takes the same small weighted sum at every place of an image. Copy the patch that each place sees into a row of a
matrix, and all of these sums are one product of that matrix with the weights, which is what computers are best at. Backward,
the product has two gradients, as that of a dense layer has, and the rows go back to where they came from: a pixel that was in
nine patches gets nine gradients, and they add up.

Source: LeCun et al. 1989, https://doi.org/10.1162/neco.1989.1.4.541; Chellapilla, Puri, Simard 2006 (im2col).

Shapes: B batch, C channels, H height, W width, K side of the kernel, h and w the size of the output.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dlzoo.scratch.layer import Layer, Parameter

__all__ = ["Conv2d", "col2im", "im2col"]


def im2col(x: np.ndarray, size: int, stride: int = 1, padding: int = 0) -> np.ndarray:
    """The patches of images: (B, C, H, W) -> (B, h, w, C, K, K).

    Args:
        x: the images.
        size: K.
        stride: pixels between two patches.
        padding: zeros round the image.

    Raises:
        ValueError: the patch is larger than the padded image.
    """
    if size > min(x.shape[2:]) + 2 * padding:
        raise ValueError(f"a patch of {size} does not fit into {x.shape[2]} x {x.shape[3]} pixels with padding {padding}")
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    patches = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]  # (B, C, h, w, K, K), a view
    return patches.transpose(0, 2, 3, 1, 4, 5)


def col2im(patches: np.ndarray, shape: tuple[int, ...], stride: int = 1, padding: int = 0) -> np.ndarray:
    """The transpose of im2col: every number goes back to its pixel, and what meets there is added up.

    Args:
        patches: (B, h, w, C, K, K).
        shape: (B, C, H, W), of the images.
        stride: as in im2col.
        padding: as in im2col.
    """
    batch, channels, height, width = shape
    _, h, w, _, size, _ = patches.shape
    x = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding), patches.dtype)
    for i in range(size):  # the places of one number of the patch do not overlap: K * K sums of whole arrays
        for j in range(size):
            x[:, :, i : i + stride * h : stride, j : j + stride * w : stride] += patches[..., i, j].transpose(0, 3, 1, 2)
    return x[:, :, padding : padding + height, padding : padding + width]


class Conv2d(Layer):
    """A convolution with a bias; as everywhere in deep learning it is a correlation: the kernel is not turned round.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        size: K.
        rng: draws the first weights, with variance 2 / (C K K), as He et al. 2015 do.
        stride: pixels between two places.
        padding: zeros round the image.

    Shape:
        (B, C, H, W) -> (B, out_channels, h, w), h = (H + 2 padding - K) // stride + 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int, rng: np.random.Generator, stride: int = 1, padding: int = 0
    ) -> None:
        shape = (out_channels, in_channels, size, size)
        self.weight = Parameter(rng.normal(0, np.sqrt(2 / (in_channels * size * size)), shape))
        self.bias = Parameter(np.zeros(out_channels))
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: np.ndarray) -> np.ndarray:
        patches = im2col(x, self.size, self.stride, self.padding)
        self.x_shape, self.patches_shape = x.shape, patches.shape
        batch, h, w = patches.shape[:3]
        self.rows = patches.reshape(batch * h * w, -1)  # (B h w, C K K)
        y = self.rows @ self._matrix() + self.bias.value  # (B h w, out_channels)
        return y.reshape(batch, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dy = dy.transpose(0, 2, 3, 1).reshape(len(self.rows), -1)  # (B h w, out_channels)
        self.weight.gradient = (self.rows.T @ dy).T.reshape(self.weight.value.shape)
        self.bias.gradient = dy.sum(axis=0)
        patches = (dy @ self._matrix().T).reshape(self.patches_shape)
        return col2im(patches, self.x_shape, self.stride, self.padding)

    def _matrix(self) -> np.ndarray:
        return self.weight.value.reshape(len(self.weight.value), -1).T  # (C K K, out_channels)
