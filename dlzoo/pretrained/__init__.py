"""Published weights in the zoo's own form.

One module for each model file. It offers `SOURCES`, the published file of each name, and `convert(name, state_dict)`. They are
found by looking through this folder, so a new model brings its module and edits nothing. `renaming.py` has what they share.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from dlzoo.errors import ConfigError, suggest
from dlzoo.pretrained.renaming import check

__all__ = ["IMAGENET", "Source", "convert", "imagenet", "names", "source"]

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Source:
    """A published file of weights.

    Args:
        url: where it lies.
        sha256: its hash in hexadecimal digits, or the first 8 of them where the publisher states no more.
        licence: as the publisher names it.
        accuracy: what the publisher measured, and on what.
        paper: who trained it, and how.
        mean, std: of each channel; the weights expect (image in [0, 1] - mean) / std.
        size: in bytes, where it is known.
    """

    url: str
    sha256: str
    licence: str
    accuracy: str
    paper: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None


def imagenet(file: str, top1: str, top5: str, paper: str, side: int = 224) -> Source:
    """A file of torchvision's; the last part of its name is the head of its hash.

    Args:
        file: for example "resnet18-f37072fd.pth".
        top1, top5: per cent, as torchvision states them.
        paper: who trained it, and how.
        side: of the one crop that they were measured on.
    """
    accuracy = f"ImageNet-1k validation, one crop of {side}: top-1 {top1} %, top-5 {top5} %"
    sha256 = file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Source(TORCHVISION + file, sha256, "BSD-3-Clause", accuracy, paper, **IMAGENET)


def names() -> list[str]:
    """The models with published weights, sorted."""
    return sorted(_homes())


def source(name: str) -> Source:
    """The published file of a model.

    Raises:
        ConfigError: there are no published weights of that name.
    """
    return _home(name).SOURCES[name]


def convert(name: str, state_dict: Mapping[str, Any], own: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A published state dict under our names, for `load_state_dict`; the tensors are shared, not copied.

    Args:
        name: the model, for example "resnet50".
        state_dict: what `torch.load(path, weights_only=True)` gives of the published file.
        own: the state dict of the model that shall take them. With it, all that is missing, too much or of another shape is
            found here (the first and the last layer may differ), and not by `load_state_dict`.

    Raises:
        ConfigError: there are no published weights of that name.
        CheckpointError: it is the state dict of another model.
    """
    converted = _home(name).convert(name, state_dict)
    if own is not None:
        check(name, converted, own)
    return converted


def _home(name: str) -> ModuleType:
    try:
        return _homes()[name]
    except KeyError:
        hint = suggest(name, _homes())
        raise ConfigError(
            f"there are no published weights for {name!r}" + (f": {hint}" if hint else ""), fix="pretrained=False"
        ) from None


@functools.cache
def _homes() -> dict[str, ModuleType]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return {name: module for module in modules for name in getattr(module, "SOURCES", {})}
