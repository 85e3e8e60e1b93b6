"""Published weights in the zoo's own form.

One module for each model file. It offers `SOURCES`, the published file of each name, and `convert(name, state_dict)`. They are
found by looking through this folder, so a new model brings its module and edits nothing.
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

__all__ = ["Source", "convert", "names", "source"]


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


def names() -> list[str]:
    """The models with published weights, sorted."""
    return sorted(_homes())


def source(name: str) -> Source:
    """The published file of a model.

    Raises:
        ConfigError: there are no published weights of that name.
    """
    return _home(name).SOURCES[name]


def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict under our names, for `load_state_dict`; the tensors are shared, not copied.

    Args:
        name: the model, for example "resnet50".
        state_dict: what `torch.load(path, weights_only=True)` gives of the published file.

    Raises:
        ConfigError: there are no published weights of that name.
        CheckpointError: it is the state dict of another model.
    """
    return _home(name).convert(name, state_dict)


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
