"""Which layer to look at, and its output.

A layer is named as `net.named_modules()` names it. The default is the last map that still knows where things are: the one that
a classifier averages over space. It is found by running the network once, so that it fits any network.

Letters: B batch, C channels, H height, W width, N tokens.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError, suggest

__all__ = ["as_map", "evaluating", "find", "last_map", "maps_by_size", "recording", "require_pictures", "require_scores"]

SMALLEST = 4  # sides of a map below which it hardly tells left from right


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; each of its modules has its own mode back afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def recording(net: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While it is open, a forward pass leaves the outputs of the named layers in the dict, as parts of the graph.

    What follows a layer gets a copy of its output: a relu or a sum may overwrite that in place.

    Raises:
        ConfigError: there is no such layer, or what it gives is no tensor.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str):
        def hook(module: nn.Module, inputs: object, output: object) -> Tensor:
            if not isinstance(output, Tensor):
                raise ConfigError(f"the layer {name!r} gives no tensor", where="layer", fix="a layer inside it, or behind it")
            found[name] = output
            return output.clone()

        return hook

    handles = [find(net, name).register_forward_hook(watch(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def find(net: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises:
        ConfigError: there is none; the text names those that are near.
    """
    layers = dict(net.named_modules())
    layers.pop("")
    if name not in layers:
        few = ", ".join(child for child, _ in net.named_children())
        raise ConfigError(f"there is no layer {name!r}", where="layer", fix=suggest(name, layers) or f"{few}, or one inside")
    return layers[name]


def last_map(net: nn.Module, images: Tensor) -> str:
    """The layer whose output is the last map that the scores depend on place by place, of at least 4 x 4 where there is one.

    For a convolutional network that is what is averaged over space at the end. For a transformer it is the last norm whose
    patches still reach the scores.

    Args:
        net: the network.
        images: (B, C, H, W); the first is used.

    Raises:
        ConfigError: there is no such layer: nothing in this network keeps places apart.
    """
    events = _maps(net, images)
    large = [name for name, size in events if min(size) >= SMALLEST]
    small = [name for name, size in events if min(size) < SMALLEST]
    for name in [*reversed(large), *reversed(small)]:
        if _reaches_the_scores(net, images[:1], name):
            return name
    raise ConfigError(
        f"{type(net).__name__} has no layer whose output is a map of the picture",
        where="layer",
        fix="dlzoo explain RUN occlusion, which looks at the scores alone",
    )


def maps_by_size(net: nn.Module, images: Tensor) -> list[str]:
    """For each size of map that the network goes through, the last layer of that size, first to last."""
    last: dict[tuple[int, int], str] = {}
    for name, size in _maps(net, images):
        last.pop(size, None)
        last[size] = name
    return list(last.values())


def as_map(output: Tensor, module: nn.Module) -> Tensor:
    """A layer's output as (B, C, H, W); the patches of a transformer are put back where they were cut, other tokens left out.

    Raises:
        ConfigError: it is no map.
    """
    if output.ndim == 4:
        last = type(module) is nn.LayerNorm and output.shape[-1] == module.normalized_shape[-1]  # (B, H, W, C)
        return output.permute(0, 3, 1, 2) if last else output
    if output.ndim == 3 and (side := math.isqrt(output.shape[1])) > 1:
        patches = output[:, output.shape[1] - side * side :]  # tokens of no place, such as the class, stand before
        return patches.transpose(1, 2).unflatten(2, (side, side))
    raise ConfigError(
        f"the layer gives {tuple(output.shape)}, which is no map (B, C, H, W)", where="layer", fix="a layer before it"
    )


def require_pictures(images: Tensor) -> None:
    """Raises ConfigError where the input is no batch of pictures."""
    if images.ndim != 4:
        raise ConfigError(
            f"this needs pictures (B, C, H, W), and the network's input is {tuple(images.shape)}",
            fix="for sound and other inputs: dlzoo explain RUN confusion, or landscape",
        )


def require_scores(scores: object) -> Tensor:
    """Raises ConfigError where the network does not give one score for each class."""
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ConfigError(
            f"this needs one score for each class, (B, K), and the network gives {shape}",
            fix="for networks that give maps: dlzoo explain RUN filters, features or receptive_field",
        )
    return scores


def _maps(net: nn.Module, images: Tensor) -> list[tuple[str, tuple[int, int]]]:
    """The layers that give maps, in the order in which they end, with the maps' sizes; of nested ones the innermost."""
    events: list[tuple[str, tuple[int, int]]] = []
    seen: list[Tensor] = []
    version: list[int] = []

    def watch(name: str):
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                return
            if seen and output is seen[0] and output._version == version[0]:  # a sequence ends with its last layer
                return
            tokens = output.ndim == 3 and isinstance(module, nn.LayerNorm)
            if output.ndim == 4 or tokens:
                try:
                    size = tuple(as_map(output, module).shape[2:])
                except ConfigError:
                    return
                # the queries and keys of attention, (B, heads, N, D), have four dimensions too, but not the picture's shape
                if min(size) > 1 and 0.5 <= size[0] * images.shape[3] / (size[1] * images.shape[2]) <= 2:
                    events.append((name, size))
                    seen[:], version[:] = [output], [output._version]  # changed in place it is another output

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in net.named_modules() if _may_be_a_map(name, module)]
    try:
        with torch.no_grad(), evaluating(net):
            net(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return events


def _may_be_a_map(name: str, module: nn.Module) -> bool:
    """Not the network itself, nor a pool or a dropout, which only repeat a map, nor what is inside of an attention."""
    kind = type(module).__name__.lower()
    return bool(name) and not any(part in kind for part in ("pool", "dropout", "identity")) and ".attn." not in name


def _reaches_the_scores(net: nn.Module, image: Tensor, name: str) -> bool:
    """Whether the places of a layer's map have gradients: of a transformer's last norm only the class token may have one."""
    with torch.enable_grad(), evaluating(net), recording(net, [name]) as found:
        scores = net(image.detach().requires_grad_())
        if not isinstance(scores, Tensor) or not found[name].requires_grad:
            return False
        gradient = torch.autograd.grad(scores.float().square().sum(), found[name], allow_unused=True)[0]
    return gradient is not None and bool(as_map(gradient, find(net, name)).any())
