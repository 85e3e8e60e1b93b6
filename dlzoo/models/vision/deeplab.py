"""DeepLabV3: a label for each pixel, from a classification network that keeps its resolution.

A classifier shrinks its map 32 times, too coarse for outlines. Here the last stages do not stride; their kernels are spread
out instead (dilated), so that each looks as far as it did before and its weights still fit. On top, objects of all sizes are
met by parallel convolutions with different spreads and one average over the whole image (ASPP), and the answer is
interpolated to the size of the image.

Source: Chen, Papandreou, Schroff, Adam 2017, Rethinking Atrous Convolution for Semantic Image Segmentation,
    https://arxiv.org/abs/1706.05587, sections 3.1 to 3.3.
Differs from it: no multi-grid, and a 3x3 convolution with dropout before the classifier, both as in torchvision.

Shapes: B batch, C channels, H height, W width, s output stride, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ASPP", "DeepLabV3", "deeplabv3_resnet18", "deeplabv3_resnet50", "deeplabv3_resnet101"]


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: one place seen through windows of several widths, and the image as a whole.

    Args:
        in_channels: of the map.
        channels: of each branch, and of the output.
        rates: spread of the kernel of each 3x3 branch; beside them stand a 1x1 convolution and the average over the image.

    Shape:
        (B, in_channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_conv(in_channels, channels, 1)])
        self.branches.extend(_conv(in_channels, channels, 3, rate) for rate in rates)
        self.whole = _conv(in_channels, channels, 1)
        self.project = _conv((len(rates) + 2) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])  # the same everywhere
        return self.project(torch.cat([*(branch(x) for branch in self.branches), whole], 1))


class DeepLabV3(nn.Module):
    """A backbone without its classifier and its last strides, ASPP, and a classifier of pixels.

    Args:
        backbone: a network with a `stem`, `stages` and a linear `head` on the last stage; of its stages, all but the first
            halve the size. Its head is left out; its other parts are taken, and changed.
        num_classes: channels of the output.
        output_stride: how much smaller than the image the last map is.
        channels: of ASPP.
        rates: of ASPP; None takes the paper's, (6, 12, 18) at output stride 16 and twice that at 8.
        dropout: before the last convolutions, in training.

    Shape:
        (B, in_channels, H, W) -> (B, num_classes, H, W), logits.

    Raises:
        ValueError: an output stride that is neither 8 nor 16, or a number that is not positive.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 21,
        output_stride: Literal[8, 16] = 8,
        channels: int = 256,
        rates: Sequence[int] | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {output_stride}")
        for name, value in (("num_classes", num_classes), ("channels", channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.stem, self.stages = backbone.stem, backbone.stages
        dilation = 1
        for stage in self.stages[-1:] if output_stride == 16 else self.stages[-2:]:
            dilation = _dilate(stage, dilation)
        self.aspp = ASPP(backbone.head.in_features, channels, rates or [96 // output_stride * i for i in (1, 2, 3)])
        self.dropout = nn.Dropout(dropout)
        self.refine = _conv(channels, channels, 3)
        self.head = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x))  # (B, C, H / s, W / s), rounded up
        logits = self.head(self.refine(self.dropout(self.aspp(features))))  # (B, K, H / s, W / s)
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)  # (B, K, H, W)


def _conv(in_channels: int, out_channels: int, kernel_size: int, rate: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=rate * (kernel_size // 2), dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def _dilate(stage: nn.Module, dilation: int) -> int:
    """Takes the stride of a stage away, in place, and spreads the kernels behind it so that they see what they saw.

    Args:
        stage: of a residual network.
        dilation: of the stage before.

    Returns:
        the dilation behind the stride that is no more.
    """
    factor = max(conv.stride[0] for conv in stage.modules() if isinstance(conv, nn.Conv2d))
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            # the convolution that had the stride still gets the map of before it
            rate = dilation if conv.stride[0] > 1 else factor * dilation
            conv.stride = (1, 1)
            if conv.kernel_size[0] > 1:
                conv.dilation, conv.padding = (rate, rate), tuple(rate * (size // 2) for size in conv.kernel_size)
    return factor * dilation


def deeplabv3_resnet18(
    backbone: Callable[..., nn.Module], num_classes: int = 21, in_channels: int = 3, output_stride: Literal[8, 16] = 8
) -> DeepLabV3:
    """15,904,085 parameters over ResNet-18; not in the paper: a size for small data."""
    return DeepLabV3(backbone(num_classes=1, in_channels=in_channels), num_classes, output_stride)


def deeplabv3_resnet50(
    backbone: Callable[..., nn.Module], num_classes: int = 21, in_channels: int = 3, output_stride: Literal[8, 16] = 8
) -> DeepLabV3:
    """39,638,869 parameters over ResNet-50. COCO val 2017 with the labels of Pascal VOC, by torchvision: 66.4 % mIoU."""
    return DeepLabV3(backbone(num_classes=1, in_channels=in_channels), num_classes, output_stride)


def deeplabv3_resnet101(
    backbone: Callable[..., nn.Module], num_classes: int = 21, in_channels: int = 3, output_stride: Literal[8, 16] = 8
) -> DeepLabV3:
    """58,630,997 parameters over ResNet-101; Pascal VOC 2012 val in the paper: 77.21 % mIoU with multi-grid (table 5)."""
    return DeepLabV3(backbone(num_classes=1, in_channels=in_channels), num_classes, output_stride)
