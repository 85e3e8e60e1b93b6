"""The figures of each method, for a network and some pictures. The methods themselves are one file each beside this one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError
from dlzoo.explain.features import feature_maps, liveliest
from dlzoo.explain.filters import first_layer, first_layer_filters
from dlzoo.explain.gradcam import gradcam
from dlzoo.explain.landscape import Surface, filter_normalised, surface, way
from dlzoo.explain.layers import evaluating, last_map, maps_by_size, require_pictures, require_scores
from dlzoo.explain.occlusion import occlusion
from dlzoo.explain.receptive_field import by_gradient, effective, half_width
from dlzoo.explain.visualize import activation, visualize
from dlzoo.plots.images import image_grid
from dlzoo.plots.landscape import Terrain, landscape
from dlzoo.plots.panels import Panel, Scale, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Sample",
    "evenly",
    "features_picture",
    "field_picture",
    "filters_picture",
    "gradcam_picture",
    "occlusion_picture",
    "surface_terrain",
    "visualize_picture",
    "way_picture",
]

SHOWN = 8  # pictures or channels side by side
CANVASES = (65, 129, 257, 513)


@dataclass(frozen=True)
class Sample:
    """Pictures to look at.

    Args:
        images: (B, C, H, W), as the network gets them.
        classes: the names of what the network tells apart.
        labels: which of them each picture is; None where nobody knows.
        mean: of the colours, by which pictures in [0, 1] became the network's input.
        std: their standard deviation.
    """

    images: Tensor
    classes: Sequence[str]
    labels: Sequence[int] | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    @property
    def shown(self) -> Tensor:
        """The pictures in their own colours, (B, C, H, W), in [0, 1]; of other than 1 or 3 channels the mean."""
        mean, std = (torch.tensor(tuple(values)).view(1, -1, 1, 1) for values in (self.mean, self.std))
        images = (self.images.detach().float().cpu() * std + mean).clamp(0, 1)
        return images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)

    def first(self, count: int) -> "Sample":
        """The first pictures."""
        labels = None if self.labels is None else list(self.labels[:count])
        return Sample(self.images[:count], self.classes, labels, self.mean, self.std)

    def name(self, index: int) -> str:
        """Of a class, or its number where there are more classes than names."""
        return self.classes[index] if index < len(self.classes) else f"class {index}"


def evenly(count: int, of: int) -> list[int]:
    """Indices of `count` things out of `of`, or of all, at even distances: where they lie class by class, of every class."""
    count = min(count, of)
    return [(2 * index + 1) * of // (2 * count) for index in range(count)]


def gradcam_picture(net: nn.Module, sample: Sample, title: str, layer: str | None = None) -> "Figure":
    """The pictures; Grad-CAM and Grad-CAM++ of the class that the network chooses; Grad-CAM of its second choice."""
    require_pictures(sample.images)
    sample = sample.first(SHOWN)
    probabilities = _probabilities(net, sample.images)
    layer = layer or last_map(net, sample.images)
    best = probabilities.topk(min(2, probabilities.shape[1]), dim=1)
    heat = [gradcam(net, sample.images, best.indices[:, 0].tolist(), layer, plus_plus) for plus_plus in (False, True)]
    labels = ["picture", "Grad-CAM\nof its choice", "Grad-CAM++\nof its choice"]
    rows = [
        _pictures(sample, probabilities),
        *([Panel(*pair) for pair in zip(sample.shown, maps, strict=True)] for maps in heat),
    ]
    if best.indices.shape[1] > 1:
        second = best.indices[:, 1].tolist()
        maps = gradcam(net, sample.images, second, layer)
        rows.append([Panel(i, m, sample.name(c)) for i, m, c in zip(sample.shown, maps, second, strict=True)])
        labels.append("Grad-CAM of its\nsecond choice")
    scale = Scale(label="speaks for the class", ends=("not", "most"))
    return panels(
        rows, f"{title}: Grad-CAM at {layer}", labels, scale, "Does it look at the object, or at what stands around it?"
    )


def filters_picture(net: nn.Module, sample: Sample, title: str, layer: str | None = None) -> "Figure":
    """The filters of the first layer."""
    require_pictures(sample.images)
    filters = first_layer_filters(net, tuple(sample.images.shape[1:]), layer)[:64]
    height, width = filters.shape[2:]
    name = layer or first_layer(net)
    return image_grid(
        filters, [], f"{title}: {len(filters)} filters of {name}, {height} x {width}", columns=min(len(filters), 8)
    )


def features_picture(net: nn.Module, sample: Sample, title: str, layer: str | None = None) -> "Figure":
    """For one picture the liveliest channels of a layer of each size, or 32 of the layer that is named."""
    sample = sample.first(1)
    maps = feature_maps(net, sample.images, None if layer is None else [layer])
    rows = [_pictures(sample, None)]
    labels = ["the picture"]
    for name, found in maps.items():
        channels = liveliest(found[0], SHOWN if layer is None else 4 * SHOWN).tolist()
        cells = [Panel(heat=_stretched(found[0, channel]), caption=f"channel {channel}") for channel in channels]
        for start in range(0, len(cells), SHOWN):
            rows.append(cells[start : start + SHOWN])
            labels.append(f"{name}\n{found.shape[1]} maps, {found.shape[2]} x {found.shape[3]}" if not start else "")
    scale = Scale(label="activation of the channel", colours="viridis", ends=("least", "most"))
    note = "First the picture and its edges; deeper, fewer places and more of what is there."
    return panels(rows, f"{title}: feature maps, the channels that vary most", labels, scale, note)


def visualize_picture(net: nn.Module, sample: Sample, title: str, layer: str | None = None, units: int = 16) -> "Figure":
    """What the classes like best, or the first channels of a layer; their activation, and the highest of a real picture."""
    require_pictures(sample.images)
    shape = tuple(sample.images.shape[1:])
    with torch.no_grad(), evaluating(net):
        count = activation_count(net, sample.images, layer)
        chosen = list(range(min(units, count)))
        made = visualize(net, chosen, shape, layer, (sample.mean, sample.std))
        mean, std = (torch.tensor(tuple(values)).view(1, -1, 1, 1) for values in (sample.mean, sample.std))
        values = activation(net, (made - mean) / std, chosen, layer)
        real = [float(activation(net, sample.images, [unit] * len(sample.images), layer).max()) for unit in chosen]
    names = [sample.name(unit) if layer is None else f"channel {unit}" for unit in chosen]
    captions = [f"{name}\n{value:.1f}, real {best:.1f}" for name, value, best in zip(names, values.tolist(), real, strict=True)]
    cells = [Panel(picture, caption=caption) for picture, caption in zip(made.cpu(), captions, strict=True)]
    columns = -(-len(cells) // -(-len(cells) // SHOWN))  # rows of the same length
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    what = "classes" if layer is None else f"channels of {layer}"
    note = f"Below: how much it answers, and the most that it answers to one of {len(sample.images)} real pictures."
    return panels(rows, f"{title}: what {what} answer to most", note=note)


def activation_count(net: nn.Module, images: Tensor, layer: str | None) -> int:
    """The number of units: classes, or channels of a layer."""
    if layer is None:
        return require_scores(net(images[:1])).shape[1]
    return next(iter(feature_maps(net, images[:1], [layer]).values())).shape[1]


def occlusion_picture(net: nn.Module, sample: Sample, title: str) -> "Figure":
    """The pictures, and how much of the choice's probability hangs on each part of them."""
    require_pictures(sample.images)
    sample = sample.first(SHOWN)
    probabilities = _probabilities(net, sample.images)
    maps = [occlusion(net, image) for image in sample.images]
    largest = max(max(float(heat.abs().max()) for heat in maps), 1e-3)
    covered = [Panel(image, heat) for image, heat in zip(sample.shown, maps, strict=True)]
    scale = Scale(-largest, largest, "probability lost where covered", "RdBu_r")
    note = "Red: without this part it is less sure. Blue: covering it helps."
    return panels(
        [_pictures(sample, probabilities), covered],
        f"{title}: occlusion",
        ["picture", "what hangs\non which part"],
        scale,
        note,
    )


def field_picture(net: nn.Module, sample: Sample, title: str, layer: str | None = None) -> "Figure":
    """For layers of each size what their middle unit can see (frame), and what it looks at (heat)."""
    require_pictures(sample.images)
    layers = [layer] if layer else maps_by_size(net, sample.images)
    shape = tuple(sample.images.shape[1:])
    for side in CANVASES:  # noise that even the last layer's field fits in, so that no edge cuts it off
        try:
            whole = max(by_gradient(net, layers[-1], (shape[0], side, side)).size) < side
        except ConfigError:  # the network takes pictures of its own size alone
            images = sample.images[:64]
            break
        if whole or side == CANVASES[-1]:
            count = max(1, min(16, 2**19 // side**2))
            images = torch.randn(count, shape[0], side, side, generator=torch.Generator().manual_seed(0))
            break
    cells = []
    for name in layers:
        seen, heat = by_gradient(net, name, tuple(images.shape[1:])), effective(net, name, images)
        sees = "all" if seen.size == tuple(heat.shape) else f"{seen.size[0]}"
        caption = f"{name}\nsees {sees}, looks at {half_width(heat):.0f}"
        cells.append(Panel(heat=heat.sqrt(), caption=caption, box=(seen.left, seen.top, seen.right, seen.bottom)))
    scale = Scale(label="gradient", colours="magma", ends=("none", "most"))
    note = "Frame: what a unit can see. Bright: what it looks at; far less."
    return panels([cells], f"{title}: receptive fields, in pixels", (), scale, note)


def surface_terrain(net: nn.Module, loss: Callable[[nn.Module], float], name: str, points: int, seed: int = 0) -> Terrain:
    """The loss in two random filter-normalised directions, from -1 to 1."""
    steps = torch.linspace(-1, 1, points)
    return Terrain(*surface(net, loss, filter_normalised(net, seed), steps, steps), name=name)


def way_picture(
    net: nn.Module,
    loss: Callable[[nn.Module], float],
    checkpoints: Sequence[Mapping[str, Tensor]],
    title: str,
    points: int = 15,
) -> "Figure":
    """The way of a training over the loss in the plane in which it moved most. The network gets the last weights."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(checkpoints[-1][name])
    found = way(checkpoints, [name for name, _ in net.named_parameters()])
    low, high = found.places.amin(0), found.places.amax(0)
    room = 0.25 * (high - low).max().clamp(min=1e-6)
    first, second = (torch.linspace(float(low[k] - room), float(high[k] + room), points) for k in (0, 1))
    seen: Surface = surface(net, loss, found.directions, first, second)
    axes = tuple(
        f"{word} principal direction, {share:.0%}" for word, share in zip(("first", "second"), found.explained, strict=True)
    )
    terrain = Terrain(*seen, name=f"{len(checkpoints)} checkpoints", axes=axes, places=found.places)
    return landscape([terrain], title, "Each dot is a checkpoint; the last stands in the valley.")


def _probabilities(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(net):
        return require_scores(net(images)).float().softmax(1).cpu()


def _pictures(sample: Sample, probabilities: Tensor | None) -> list[Panel]:
    cells = []
    for index, image in enumerate(sample.shown):
        label = None if sample.labels is None else int(sample.labels[index])
        if probabilities is None:
            cells.append(Panel(image, caption="" if label is None else sample.name(label)))
            continue
        top = int(probabilities[index].argmax())
        words = f"{sample.name(top)} {probabilities[index, top]:.2f}"
        wrong = label is not None and top != label
        cells.append(Panel(image, caption=f"{words}\nis {sample.name(label)}" if wrong else words, mark=wrong))
    return cells


def _stretched(heat: Tensor) -> Tensor:
    heat = heat.float().cpu() - heat.min().cpu()
    return heat / heat.max().clamp(min=1e-12)
