"""Feature visualisation: the picture that a unit likes best, found by climbing its gradient from noise.

Without a prior the climb ends in high-frequency patterns that no camera makes. Here three of them keep it honest: the picture
is made of its Fourier waves, the long ones first (as natural pictures are); it is shifted a little at random before each step,
so that nothing may hang on single pixels; and differences between neighbours cost something (total variation).

Source: Erhan et al. 2009, Visualizing higher-layer features of a deep network; Mahendran, Vedaldi 2014,
    https://arxiv.org/abs/1412.0035 (total variation); Olah, Mordvintsev, Schubert 2017, Feature Visualization,
    https://doi.org/10.23915/distill.00007 (frequencies, shifts).

Letters: U units, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError
from dlzoo.explain.layers import as_map, evaluating, find, recording, require_scores

__all__ = ["activation", "visualize"]

RATE = 0.2
STARTS = 4  # climbs for each unit, of which the best counts: some end on a low hill


def visualize(
    net: nn.Module,
    units: Sequence[int],
    shape: tuple[int, int, int],
    layer: str | None = None,
    colours: tuple[Sequence[float], Sequence[float]] = ((0.5,), (0.25,)),
    steps: int = 128,
    variation: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """For each unit a picture that it answers to strongly.

    Args:
        net: the network; it is looked at in evaluation mode and left as it was.
        units: channels of the layer, or classes where no layer is named.
        shape: (C, H, W) of the network's input.
        layer: whose channels; None is the scores.
        colours: mean and standard deviation of the colours, by which the network's input was made from pictures in [0, 1].
        steps: of the climb.
        variation: what neighbouring pixels that differ by 1 cost, as a share of the activation; 0 is off.
        seed: of the noise that it starts from and of the shifts.

    Shape:
        -> (U, C, H, W), in [0, 1].

    Raises:
        ConfigError: no such layer.
        ValueError: no unit, one that is not there, or no step.
    """
    if not units or steps < 1:
        raise ValueError(f"units and steps must be at least one, got {list(units)} and {steps}")
    device = next(net.parameters()).device
    mean, std = (torch.tensor(tuple(values), device=device).view(1, -1, 1, 1) for values in colours)
    random = torch.Generator().manual_seed(seed)
    scale = _frequencies(*shape[1:]).to(device)  # (H, W / 2 + 1)
    tried = [unit for unit in units for _ in range(STARTS)]
    waves = torch.randn(len(tried), shape[0], *scale.shape, 2, generator=random).to(device).requires_grad_()
    climb = torch.optim.Adam([waves], lr=RATE)
    reach = min(shape[1:]) // 16  # a tiny picture stays where it is: a pixel is much there
    with torch.enable_grad(), evaluating(net):
        for _ in range(steps):
            pictures = _pictures(waves, scale, shape, mean, std)
            down, across = torch.randint(-reach, reach + 1, (2,), generator=random).tolist()
            moved = ((pictures - mean) / std).roll((down, across), (2, 3))
            values = activation(net, moved, tried, layer)
            rough = pictures.diff(dim=2).abs().mean((1, 2, 3)) + pictures.diff(dim=3).abs().mean((1, 2, 3))
            loss = (variation * values.detach().abs() * rough - values).sum()
            waves.grad = torch.autograd.grad(loss, waves)[0]
            climb.step()
        pictures = _pictures(waves, scale, shape, mean, std).detach()
        values = activation(net, (pictures - mean) / std, tried, layer).detach().view(-1, STARTS)
        return pictures.unflatten(0, (-1, STARTS))[torch.arange(len(units)), values.argmax(1).cpu()]


def activation(net: nn.Module, x: Tensor, units: Sequence[int], layer: str | None = None) -> Tensor:
    """How strongly picture i makes unit i answer: the class's score, or the mean of the channel's map.

    Args:
        net: the network.
        x: (U, C, H, W), as the network gets it.
        units: one for each picture.
        layer: whose channels; None is the scores.

    Shape:
        -> (U,).
    """
    if layer is None:
        values = require_scores(net(x))
    else:
        module = find(net, layer)
        with recording(net, [layer]) as found:
            net(x)
        output = found[layer]
        values = output if output.ndim == 2 else as_map(output, module).mean((2, 3))
    if max(units) >= values.shape[1] or min(units) < 0:
        wrong = max(units) if max(units) >= values.shape[1] else min(units)
        raise ConfigError(f"there are units 0 to {values.shape[1] - 1}, and {wrong} is asked for", where=layer or "classes")
    return values.gather(1, torch.as_tensor(list(units), device=values.device)[:, None])[:, 0]


def _frequencies(height: int, width: int) -> Tensor:
    """The weight of each wave, 1 / frequency: what makes all lengths equally visible in natural pictures."""
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (down**2 + across**2).sqrt().clamp(min=1 / max(height, width))
    return (height * width) ** 0.5 / frequency / max(height, width)


def _pictures(waves: Tensor, scale: Tensor, shape: tuple[int, int, int], mean: Tensor, std: Tensor) -> Tensor:
    """The waves added up, in colours that pictures have: 0 is the mean, and all lies between 0 and 1."""
    signal = torch.fft.irfft2(torch.view_as_complex(waves) * scale, s=shape[1:])
    start = (mean / (1 - mean)).log()
    return (start + 4 * std * signal).sigmoid()
