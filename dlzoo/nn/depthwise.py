"""A depthwise convolution whose backward pass is quick on a CPU.

Each channel is filtered by itself, so there are few multiplications and everything depends on the kernel's code. On a CPU
oneDNN's is good for the forward pass, for kernels of 3x3 and for stride 1. Past that its backward pass is a plain loop, in bf16
up to 100 times slower: 60 % of a training step of EfficientNet-B0. Both slow cases can be had from the quick ones: the gradient
of a larger kernel is put together from 3x3 pieces, each the gradient of a 3x3 convolution of the shifted image; the gradient of
the image, where the stride is 2, is computed in fp32.

Source: Howard et al. 2017, MobileNets, https://arxiv.org/abs/1704.04861, section 3.1, for the layer itself.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DepthwiseConv2d"]

PIECE = 3  # the largest kernel whose gradient oneDNN computes well


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a group for each channel, and padding that keeps the size; its state dict is that of `nn.Conv2d`.

    The output is that of `nn.Conv2d`, in every type and on every device. So are the gradients, up to rounding.

    Args:
        channels: of the input and of the output.
        kernel_size: an odd number.
        stride: 2 halves height and width.
        bias: whether each channel has a bias; mostly a norm follows, which has one.

    Shape:
        (B, channels, H, W) -> (B, channels, H / stride, W / stride), rounded up.

    Raises:
        ValueError: kernel_size is even.
    """

    def __init__(self, channels: int, kernel_size: int = 3, stride: int = 1, bias: bool = False) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, or the padding cannot keep the size, got {kernel_size}")
        super().__init__(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        quick = self.kernel_size[0] <= PIECE and self.stride[0] == 1
        if quick or x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_exporting():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
            kind = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        return _Depthwise.apply(x, weight, bias, self.stride[0])


class _Depthwise(torch.autograd.Function):
    """The convolution with our own backward pass, made of operations that can be differentiated once more."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        # first, since it needs copies of the image and leaves nothing as large behind
        weights = _gradient_of_weight(grad, x, weight, ctx.stride) if of_weight else None
        image = _gradient_of_image(grad, x, weight, ctx.stride) if of_x else None
        return image, weights, grad.sum((0, 2, 3)) if of_bias else None, None


def _gradient_of_image(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    padding = weight.shape[-1] // 2
    if stride == 1 or grad.dtype == torch.float64:
        return _backward(grad, x, weight, stride, padding, image=True)
    shape = torch.empty_like(x, dtype=torch.float32)  # it does not depend on the image
    return _backward(grad.float(), shape, weight.float(), stride, padding, image=True).to(x.dtype)


def _gradient_of_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    size, pad, (tall, wide) = weight.shape[-1], weight.shape[-1] // 2, x.shape[2:]
    if size <= PIECE or min(tall, wide) < pad + max(0, stride - PIECE):  # the latter: pieces that see nothing of the image
        return _backward(grad, x, weight, stride, pad, image=False)
    height, width = ((side - 1) * stride + PIECE for side in grad.shape[2:])
    starts = [*range(0, size - PIECE, PIECE), size - PIECE]  # the last piece may overlap the one before
    rows = []
    for top in starts:
        row = []
        for left in starts:  # what these weights see of the padded image; a negative padding cuts off
            seen = F.pad(x, (pad - left, left + width - pad - wide, pad - top, top + height - pad - tall))
            row.append(_backward(grad, seen, weight[:, :, :PIECE, :PIECE], stride, 0, image=False))
        rows.append(_join(row, starts, 3))
    return _join(rows, starts, 2)


def _join(pieces: Sequence[Tensor], starts: Sequence[int], dim: int) -> Tensor:
    """One tensor of pieces that begin at `starts`, each without what the one before has already."""
    ends = [0, *(start + PIECE for start in starts)]
    new = [piece.narrow(dim, end - start, PIECE - end + start) for piece, start, end in zip(pieces, starts, ends, strict=False)]
    return torch.cat(new, dim)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, image: bool) -> Tensor:
    """One of the two gradients as torch computes it."""
    settings = [stride, stride], [padding, padding], [1, 1], False, [0, 0], len(weight)
    found = torch.ops.aten.convolution_backward(grad, x, weight, None, *settings, [image, not image, False])
    return found[0] if image else found[1]
