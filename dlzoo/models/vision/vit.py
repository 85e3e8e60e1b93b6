"""Vision Transformer: a picture as a sequence of patches, and nothing of a convolution's notion of what is near.

Each patch becomes one vector by a linear map; a learned vector says where the patch stood, and one more "class token" joins the
sequence. Blocks of attention and of a two-layer perceptron, each a correction to its input, then mix places and features.
The class token's last vector is classified. What convolutions know beforehand, this network has to learn from data.

Source: Dosovitskiy et al. 2020, An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, section 3.1 and table 1;
    the sizes Ti and S are those of Touvron et al. 2020, https://arxiv.org/abs/2012.12877, table 1; ViT-Lite is Hassani et
    al. 2021, https://arxiv.org/abs/2104.05704, section 3.1.
Differs from it: no dropout but stochastic depth, as in Touvron et al.; no hidden layer in the head, which the paper has while
    pretraining. ViT-Lite's queries, keys and values have biases here, as in ViT: 0.1 % more parameters.

Shapes: B batch, C channels, H height, W width, P patch, N tokens (patches and the class token), D width, h heads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.nn.stochastic_depth import StochasticDepth

__all__ = ["Attention", "Block", "ViT", "ViTSize", "vit_base", "vit_lite7", "vit_small", "vit_tiny"]

EPSILON = 1e-6  # of the norms; the authors' code has it, the paper does not say


@dataclass(frozen=True)
class ViTSize:
    """A row of the paper's table 1.

    Args:
        width: D, features of each token.
        depth: blocks.
        heads: of each attention; D is a multiple of it.
        mlp_ratio: hidden features of a block's perceptron, as a multiple of D.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: int = 4


class Attention(nn.Module):
    """Each token asks all tokens, several questions (heads) at once: softmax(q k / sqrt(D / h)) v.

    Args:
        width: D.
        heads: h.

    Shape:
        (B, N, D) -> (B, N, D).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def questions(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head: three of (B, h, N, D / h)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*self.questions(x))  # (B, h, N, D / h)
        return self.proj(y.transpose(1, 2).flatten(2))  # (B, N, D)


class Block(nn.Module):
    """Attention mixes the tokens, a perceptron the features of each; both correct what they get: x + f(norm(x)).

    Args:
        width: D.
        heads: h.
        mlp_ratio: hidden features of the perceptron, as a multiple of D.
        stochastic_depth: how likely it is in training that a sample skips each of the two corrections.

    Shape:
        (B, N, D) -> (B, N, D).
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4, stochastic_depth: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.skip = StochasticDepth(stochastic_depth)

    def forward(self, x: Tensor) -> Tensor:
        x = self.skip(self.attention(self.norm1(x)), x)
        return self.skip(self.mlp(self.norm2(x)), x)


class ViT(nn.Module):
    """Patches, their places, blocks, a linear head on the class token.

    Pictures of another size than `image_size` get the places between the learned ones, by bicubic interpolation (section 3.2).

    Args:
        size: width, depth, heads.
        image_size: side of the square pictures that the places are learned for.
        patch_size: P, side of a patch.
        num_classes: width of the output.
        in_channels: C.
        stochastic_depth: of the last block; the first one has none, and between them it grows in proportion.

    Shape:
        (B, C, H, W) -> (B, num_classes), logits; H and W are multiples of P.

    Raises:
        ValueError: image_size is no multiple of patch_size, the width none of the heads, a number is below 1; and in `forward`,
            a picture that the patches do not fill.
    """

    def __init__(
        self,
        size: ViTSize,
        image_size: int = 224,
        patch_size: int = 16,
        num_classes: int = 1000,
        in_channels: int = 3,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        numbers = {"depth": size.depth, "heads": size.heads, "mlp_ratio": size.mlp_ratio, "patch_size": patch_size}
        for name, value in (numbers | {"num_classes": num_classes, "in_channels": in_channels}).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if image_size < 1 or image_size % patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size, {patch_size}, got {image_size}")
        if size.width < 1 or size.width % size.heads:
            raise ValueError(f"width must be a multiple of heads, {size.heads}, got {size.width}")
        self.side = image_size // patch_size
        self.patches = nn.Conv2d(in_channels, size.width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, size.width))
        self.places = nn.Parameter(torch.empty(1, 1 + self.side**2, size.width))  # the class token's first, then row by row
        last = max(size.depth - 1, 1)
        rates = [stochastic_depth * i / last for i in range(size.depth)]
        self.blocks = nn.Sequential(*(Block(size.width, size.heads, size.mlp_ratio, rate) for rate in rates))
        self.norm = nn.LayerNorm(size.width, eps=EPSILON)
        self.head = nn.Linear(size.width, num_classes)
        self._initialise()

    def features(self, x: Tensor) -> Tensor:
        """All tokens after the last norm, the class token first: (B, C, H, W) -> (B, N, D)."""
        patch = self.patches.stride[0]
        if x.shape[2] % patch or x.shape[3] % patch:
            raise ValueError(f"height and width must be multiples of the patch, {patch}, got {x.shape[2]} and {x.shape[3]}")
        x = self.patches(x)  # (B, D, H / P, W / P)
        places = self._places(x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, N - 1, D)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1) + places  # (B, N, D)
        return self.norm(self.blocks(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[:, 0])

    def _places(self, rows: int, columns: int) -> Tensor:
        """The vectors of the places of a grid of patches, that of the class token first: (1, 1 + rows * columns, D)."""
        if (rows, columns) == (self.side, self.side):
            return self.places
        own, grid = self.places[:, :1], self.places[:, 1:]
        grid = grid.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)  # (1, D, side, side)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        return torch.cat([own, grid.flatten(2).transpose(1, 2)], 1)

    def _initialise(self) -> None:
        """As the reference implementations do: small normal weights, biases of zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        fan_in = self.patches.weight[0].numel()
        nn.init.trunc_normal_(self.patches.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.patches.bias)
        nn.init.trunc_normal_(self.places, std=0.02)
        nn.init.normal_(self.class_token, std=1e-6)


def vit_tiny(
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    patch_size: int = 16,
    stochastic_depth: float = 0.0,
) -> ViT:
    """5,717,416 parameters; ImageNet in Touvron et al. 2020: 72.2 % top-1 (table 7, DeiT-Ti)."""
    return ViT(ViTSize(192, 12, 3), image_size, patch_size, num_classes, in_channels, stochastic_depth)


def vit_small(
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    patch_size: int = 16,
    stochastic_depth: float = 0.0,
) -> ViT:
    """22,050,664 parameters; ImageNet in Touvron et al. 2020: 79.8 % top-1 (table 7, DeiT-S)."""
    return ViT(ViTSize(384, 12, 6), image_size, patch_size, num_classes, in_channels, stochastic_depth)


def vit_base(
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    patch_size: int = 16,
    stochastic_depth: float = 0.0,
) -> ViT:
    """86,567,656 parameters; ImageNet in Touvron et al. 2020, without other data: 81.8 % top-1 (table 7, DeiT-B)."""
    return ViT(ViTSize(768, 12, 12), image_size, patch_size, num_classes, in_channels, stochastic_depth)


def vit_lite7(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    patch_size: int = 4,
    stochastic_depth: float = 0.1,
) -> ViT:
    """3,722,250 parameters (authors: 3.717 M, without biases on queries, keys and values); CIFAR-10 there: 91.38 %."""
    return ViT(ViTSize(256, 7, 4, 2), image_size, patch_size, num_classes, in_channels, stochastic_depth)
