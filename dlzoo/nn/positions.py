"""Where in a sequence a token stands. Attention alone does not know: to it, a sequence is a bag.

Learned and sinusoidal positions are vectors added to the tokens'. Rotary ones turn questions and keys by an angle that grows
with the place, each pair of features at its own speed: their product then knows the distance alone. ALiBi changes no vector:
it takes from each score in proportion to the distance, each head at its own rate.

Source: learned: Gehring et al. 2017, https://arxiv.org/abs/1705.03122, section 3.1; sinusoidal: Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762, section 3.5; rotary: Su et al. 2021, https://arxiv.org/abs/2104.09864, section 3.2; ALiBi:
    Press, Smith, Lewis 2021, https://arxiv.org/abs/2108.12409, section 3 and, for other heads than powers of two, its code.
Differs from it: rotary positions pair feature i with feature i + d / 2, as Llama's weights in transformers expect, and not 2 i
    with 2 i + 1 as the paper; the same function but for the order of the features.

Shapes: B batch, T questions, S keys, D width, h heads, d width of a head.
"""

import torch
from torch import Tensor, nn

__all__ = ["LearnedPositions", "Rotary", "SinusoidalPositions", "alibi", "alibi_slopes", "rotate", "sinusoidal"]


class LearnedPositions(nn.Module):
    """One learned vector for each place.

    Args:
        length: places there are.
        width: D.

    Shape:
        positions (T,) or (B, T), whole numbers below `length` -> the same with D more.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        for name, value in (("length", length), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.weight = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, positions: Tensor) -> Tensor:
        return nn.functional.embedding(positions, self.weight)


class SinusoidalPositions(nn.Module):
    """Sines and cosines of wavelengths from 2 pi to 10,000 times that; nothing to learn, and no longest sequence.

    Args:
        width: D, even.

    Shape:
        positions (T,) or (B, T) -> the same with D more, float32.

    Raises:
        ValueError: width is odd or below 2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        _even("width", width)
        self.width = width

    def forward(self, positions: Tensor) -> Tensor:
        return sinusoidal(positions, self.width)


def sinusoidal(positions: Tensor, width: int) -> Tensor:
    """Feature 2 i is sin(p / 10000^(2 i / D)), feature 2 i + 1 the cosine: (...) -> (..., D), float32."""
    angles = _angles(positions, width, 10_000.0)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


class Rotary(nn.Module):
    """Turns the features of questions and keys: the pair (i, i + d / 2) of place p by the angle p / base^(2 i / d).

    Args:
        width: d, of a head, even.
        base: ratio of the slowest and the fastest turn; larger for longer contexts.

    Shape:
        positions (T,) or (B, T) -> cosines and sines, each (T, d) or (B, 1, T, d), float32: what `rotate` takes.

    Raises:
        ValueError: width is odd or below 2.
    """

    def __init__(self, width: int, base: float = 10_000.0) -> None:
        super().__init__()
        _even("width", width)
        self.width, self.base = width, base

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = _angles(positions, self.width, self.base)
        angles = torch.cat([angles, angles], -1)  # both features of a pair turn together
        if positions.ndim == 2:
            angles = angles[:, None]  # all heads alike
        return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Questions or keys (B, h, T, d), turned by what `Rotary` gives for their places."""
    cos, sin = (part.to(x.dtype) for part in turn)
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def alibi_slopes(heads: int) -> Tensor:
    """What each head takes off for one step of distance: 2^(-8 / h), its square, its cube and so on: (h,), float32.

    For a number of heads that is no power of two: those of the power below, and then every second one of the power above.

    Raises:
        ValueError: heads is below 1.
    """
    if heads < 1:
        raise ValueError(f"heads must be at least 1, got {heads}")
    whole = 1 << heads.bit_length() - 1  # the power of two that is not above
    exponents = [8 * (i + 1) / whole for i in range(whole)]
    exponents += [4 * (2 * i + 1) / whole for i in range(heads - whole)]
    return 2.0 ** -torch.tensor(exponents)


def alibi(slopes: Tensor, questions: int, keys: int) -> Tensor:
    """What attention adds to its scores, for the last T of S places; later places get a bonus, so use it with `causal`.

    Shape:
        slopes (h,) -> (h, T, S).
    """
    place = torch.arange(keys, device=slopes.device)
    distance = place[keys - questions :, None] - place
    return -slopes[:, None, None] * distance


def _angles(positions: Tensor, width: int, base: float) -> Tensor:
    """(...) -> (..., width / 2). From the formula each time: a table would be a buffer, and end somewhere."""
    exponents = torch.arange(0, width, 2, device=positions.device).float() / width
    # divided first, and then multiplied: as transformers does, to the last bit
    return positions[..., None].float() * (1 / base**exponents)


def _even(name: str, value: int) -> None:
    if value < 2 or value % 2:
        raise ValueError(f"{name} must be even and at least 2, got {value}")
