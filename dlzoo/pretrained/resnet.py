"""Published weights of the residual networks: torchvision's for ImageNet, Yerlan Idelbayev's for CIFAR-10.

torchvision's tensors are found by name. The CIFAR files come from several generations of code with other names; what all keep
is the order of the tensors, so they are read by order, each checked for its kind (the last word of its name) and its shape.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from dlzoo.errors import CheckpointError
from dlzoo.pretrained import IMAGENET, Source, imagenet
from dlzoo.pretrained.renaming import COUNTER, misfit, show, unwrap, with_counters

__all__ = ["SOURCES", "convert"]

CIFAR = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"

# (blocks of each stage, bottleneck?, width of the first stage); three stages are the CIFAR family
SIZES = {
    "resnet20": ((3, 3, 3), False, 16),
    "resnet32": ((5, 5, 5), False, 16),
    "resnet44": ((7, 7, 7), False, 16),
    "resnet56": ((9, 9, 9), False, 16),
    "resnet110": ((18, 18, 18), False, 16),
    "resnet18": ((2, 2, 2, 2), False, 64),
    "resnet34": ((3, 4, 6, 3), False, 64),
    "resnet50": ((3, 4, 6, 3), True, 64),
    "resnet101": ((3, 4, 23, 3), True, 64),
    "resnet152": ((3, 8, 36, 3), True, 64),
}


def _cifar(file: str, sha256: str, accuracy: str) -> Source:
    """The file names carry the first 8 digits of the sha256; the full ones are those that others computed from the files."""
    paper = "He et al. 2015, section 4.2, trained on all 50,000 images for 200 epochs by Idelbayev (pytorch_resnet_cifar10)"
    accuracy = f"CIFAR-10 test {accuracy} %"
    return Source(CIFAR + file, sha256, "BSD-2-Clause", accuracy, paper, **IMAGENET)  # he normalised with ImageNet's numbers


def _imagenet(file: str, top1: str, top5: str, recipe: str) -> Source:
    return imagenet(file, top1, top5, f"He et al. 2015, torchvision's {recipe}")


SOURCES = {
    "resnet20": _cifar("resnet20-12fca82f.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8", "91.73"),
    "resnet32": _cifar("resnet32-d509ac18.th", "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850", "92.63"),
    "resnet44": _cifar("resnet44-014dd654.th", "014dd654", "93.10"),
    "resnet56": _cifar("resnet56-4bfd9763.th", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367", "93.39"),
    "resnet110": _cifar("resnet110-1d1ed7c2.th", "1d1ed7c27571399c1fef66969bc4df68d6a92c8e6c41170f444e120e5354e3bc", "93.68"),
    "resnet18": _imagenet("resnet18-f37072fd.pth", "69.758", "89.078", "IMAGENET1K_V1"),
    "resnet34": _imagenet("resnet34-b627a593.pth", "73.314", "91.420", "IMAGENET1K_V1"),
    "resnet50": _imagenet("resnet50-11ad3fa6.pth", "80.858", "95.434", "IMAGENET1K_V2"),
    "resnet101": _imagenet("resnet101-cd907fc2.pth", "81.886", "95.780", "IMAGENET1K_V2"),
    "resnet152": _imagenet("resnet152-f82ba261.pth", "82.284", "96.002", "IMAGENET1K_V2"),
}

Shape = tuple[int | None, ...]  # None: any size, for channels of the image and classes


def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names; the tensors are shared, not copied.

    Args:
        name: a name of `SOURCES`.
        state_dict: the tensors by name, also inside {"state_dict": ...} and with "module." before each name. The number of
            classes and of image channels is free.

    Raises:
        CheckpointError: it is the state dict of another model.
    """
    found = unwrap(name, state_dict)
    pairs = _pairs(name, found)
    if pairs is None:
        raise _misfit(name, found)
    converted = {ours: found[theirs] for ours, theirs in pairs}
    for ours, theirs in pairs:
        counter = theirs.removesuffix("running_var") + COUNTER
        if ours.endswith("running_var") and counter in found:
            converted[ours.removesuffix("running_var") + COUNTER] = found[counter]
    return with_counters(converted)


def _pairs(name: str, found: Mapping[str, Tensor]) -> list[tuple[str, str]] | None:
    """(our name, the file's name) of every tensor, or None if the file is of another model."""
    layout, keys = list(_layout(name)), _weights(found)
    if _by_order(name):
        theirs = keys
        fits = len(keys) == len(layout) and all(map(_same_kind, keys, (ours for ours, _, _ in layout)))
    else:
        theirs = [their for _, their, _ in layout]
        fits = set(keys) == set(theirs)
    if not fits or not all(_fits(found[key], shape) for key, (_, _, shape) in zip(theirs, layout, strict=True)):
        return None
    return [(ours, key) for key, (ours, _, _) in zip(theirs, layout, strict=True)]


def _misfit(name: str, found: Mapping[str, Tensor]) -> CheckpointError:
    """What the file looks like, and what it lacks and has too much."""
    keys, missing = _weights(found), []
    unexpected = list(keys)
    for ours, theirs, shape in sorted(_layout(name), key=lambda entry: None in entry[2]):  # what fits anything comes last
        wanted = ours if _by_order(name) else theirs
        named_so = (key for key in unexpected if (_same_kind(key, ours) if _by_order(name) else key == theirs))
        match = next((key for key in named_so if _fits(found[key], shape)), None)
        if match is None:
            missing.append(show(wanted, shape))
        else:
            unexpected.remove(match)
    other = next((size for size in SIZES if _pairs(size, found) is not None), None)
    looks_like = f"these are the weights of {other}" if other else f"{len(keys)} tensors"
    if not other and not missing and not unexpected:
        looks_like += " in another order"
    extra = [show(key, tuple(found[key].shape)) for key in unexpected]
    return misfit(name, found, missing, extra, looks_like=looks_like, fix=f"dlzoo.create_model({other!r})" if other else "")


def _by_order(name: str) -> bool:
    return len(SIZES[name][0]) == 3


def _weights(found: Mapping[str, Tensor]) -> list[str]:
    return [key for key in found if not key.endswith(COUNTER)]


def _same_kind(name: str, other: str) -> bool:
    return name.rsplit(".", 1)[-1] == other.rsplit(".", 1)[-1]


def _fits(tensor: Tensor, shape: Shape) -> bool:
    return tensor.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, tensor.shape, strict=True))


def _layout(name: str) -> Iterator[tuple[str, str, Shape]]:
    """(our name, torchvision's name, shape) of every tensor but the counters, in the published order."""
    blocks_per_stage, bottleneck, width = SIZES[name]
    cifar = len(blocks_per_stage) == 3
    yield from _conv_norm("stem.0", "stem.1", "conv1", "bn1", (width, None, *(2 * (3 if cifar else 7,))))
    channels = width
    for i, blocks in enumerate(blocks_per_stage):
        inner, outer = width * 2**i, width * 2**i * (4 if bottleneck else 1)
        for j in range(blocks):
            ours, theirs = f"stages.{i}.{j}.", f"layer{i + 1}.{j}."
            basic = ((inner, channels, 3), (inner, inner, 3))
            deep = ((inner, channels, 1), (inner, inner, 3), (outer, inner, 1))
            for k, (out, into, kernel) in enumerate(deep if bottleneck else basic, 1):
                shape = (out, into, kernel, kernel)
                yield from _conv_norm(f"{ours}conv{k}", f"{ours}norm{k}", f"{theirs}conv{k}", f"{theirs}bn{k}", shape)
            if not cifar and j == 0 and (i > 0 or channels != outer):
                names = (f"{ours}shortcut.0", f"{ours}shortcut.1", f"{theirs}downsample.0", f"{theirs}downsample.1")
                yield from _conv_norm(*names, (outer, channels, 1, 1))
            channels = outer
    yield "head.weight", "fc.weight", (None, channels)
    yield "head.bias", "fc.bias", (None,)


def _conv_norm(conv: str, norm: str, their_conv: str, their_norm: str, shape: Shape) -> Iterator[tuple[str, str, Shape]]:
    yield f"{conv}.weight", f"{their_conv}.weight", shape
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{part}", f"{their_norm}.{part}", shape[:1]
