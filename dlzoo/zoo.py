"""The catalogue: a file under configs/model is a model of the zoo.

Reads the config tree as plain YAML and builds what a file names. Only what targets.py allows is ever called: a config is data.
"""

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dlzoo import schema
from dlzoo.errors import CheckpointError, ConfigError, DataError, suggest
from dlzoo.targets import locate

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelInfo:
    """What the catalogue says of one model.

    Args:
        name: the name of its file under configs/model.
        target: the function that builds it.
        arguments: that function's arguments, with the file's values.
        summary: the comment at the head of the file: paper, section, size.
        path: the file.
    """

    name: str
    target: str
    arguments: dict[str, Any]
    summary: str
    path: Path

    @property
    def parameters(self) -> int:
        """The number of trainable parameters, counted without taking memory for them."""
        import torch

        with torch.device("meta"):
            net = build({"_target_": self.target, **self.arguments})
        return sum(parameter.numel() for parameter in net.parameters())


def config_dir() -> Path:
    """The zoo's own configs: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def config_dirs(extra: str | Path | None = None) -> list[Path]:
    """Where configs are looked for, first to last: `extra` (--config-dir), ./configs, the zoo's own."""
    found = [Path(extra).resolve()] if extra else []
    own = config_dir()
    here = Path.cwd() / "configs"
    if here.is_dir() and here.resolve() != own:
        found.append(here.resolve())
    return [*found, own]


def list_configs(group: str, pattern: str = "*", extra: str | Path | None = None) -> list[str]:
    """The names of the files of one group, with numbers in order: resnet20, resnet110."""
    files = (path for folder in config_dirs(extra) for path in (folder / group).glob("*.yaml"))
    return sorted({path.stem for path in files if fnmatch.fnmatch(path.stem, pattern)}, key=_natural)


def list_models(pattern: str = "*") -> list[str]:
    """The models whose name matches a shell pattern.

    Args:
        pattern: for example "*resnet*".
    """
    return list_configs("model", pattern)


def model_info(name: str) -> ModelInfo:
    """What the catalogue says of a model, without importing torch.

    Raises:
        ConfigError: there is no such model.
    """
    for folder in config_dirs():
        path = folder / "model" / f"{name}.yaml"
        if path.is_file() and path.stem == name:  # a name, and no way to another folder
            break
    else:
        hint = suggest(name, list_models())
        raise ConfigError(f"there is no model {name!r}{': ' + hint if hint else ''}", fix="dlzoo list models")
    text = path.read_text(encoding="utf-8")
    try:
        arguments = read_yaml(text)
        target = arguments.pop("_target_")
    except (yaml.YAMLError, AttributeError, KeyError) as error:
        raise ConfigError(f"{path.name} is not a mapping of plain values with a _target_", where=str(path)) from error
    return ModelInfo(name, target, arguments, leading_comment(text), path)


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> "nn.Module":
    """A model of the catalogue.

    Args:
        name: a name that `list_models` gives.
        pretrained: with the published weights; where num_classes or in_channels differ from theirs, the layers that do not
            fit keep their random weights.
        overrides: other values for the arguments in its file, such as num_classes=100.

    Raises:
        ConfigError: no such model or argument, a value that it refuses, or no published weights.
        DataError: the weights can not be downloaded; the text says where to put the file.
        CheckpointError: the file holds another model's weights.
    """
    info = model_info(name)
    node = {"_target_": info.target, **info.arguments, **overrides}
    if "pretrained" in info.arguments:  # it brings its own
        node, pretrained = node | {"pretrained": pretrained}, False
    schema.check_call(node, where=f"create_model({name!r})")
    net = build(node)
    if pretrained:
        load_published(net, name)
    return net


def build(node: Any) -> Any:
    """What a plain config describes: a mapping with `_target_` becomes the call of that target, all else is kept.

    Args:
        node: mappings, lists and plain values; `_partial_: true` beside `_target_` gives a function that waits for the rest.

    Raises:
        UnsafeError: the target is not on the allow-list.
        ConfigError: the target refuses its arguments.
    """
    if isinstance(node, Mapping):
        target = locate(node["_target_"]) if "_target_" in node else None  # refused before anything inside it is built
        arguments = {key: build(value) for key, value in node.items() if key not in ("_target_", "_partial_")}
        if target is None:
            return arguments
        call = functools.partial(_called, target, node["_target_"], **arguments)
        return call if node.get("_partial_") else call()
    if isinstance(node, list | tuple):
        return [build(value) for value in node]
    return node


def _called(call: Callable[..., Any], target: str, /, *given: Any, **arguments: Any) -> Any:
    try:
        return call(*given, **arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error), where=f"the call of {target}") from error
    except ConnectionError as error:  # a model of another library that brings its own weights
        fix = "model.pretrained=false, or once with a network"
        raise DataError(str(error), where=f"the call of {target}", fix=fix) from error


def without_published(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a model that takes its weights from a checkpoint: nothing is downloaded for it."""
    return {**model, "pretrained": False} if "pretrained" in model else model


class _Loader(yaml.SafeLoader):
    """Plain YAML that also reads 1e-4 as a number, as Hydra does."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """YAML as plain values; nothing in it can name a class."""
    return yaml.load(text, Loader=_Loader)


def cache_dir() -> Path:
    """Where downloads and decoded data are kept: $DLZOO_CACHE, else ~/.cache/dlzoo."""
    return Path(os.environ.get("DLZOO_CACHE") or Path.home() / ".cache" / "dlzoo")


def leading_comment(text: str) -> str:
    """The comment lines at the head of a config file, joined; Hydra's package line is left out."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines)


def load_published(net: "nn.Module", name: str) -> list[str]:
    """Puts a model's published weights into it.

    Returns:
        the tensors that do not fit and keep their values: of the first or the last layer.

    Raises:
        ConfigError, DataError, CheckpointError: as for `create_model`.
    """
    import torch

    from dlzoo import pretrained
    from dlzoo.data.download import fetch

    source = pretrained.source(name)
    file = source.url.rsplit("/", 1)[-1]
    if not re.search(r"-[0-9a-f]{8}\.", file):  # no hash in it: on a hub every model's file is a pytorch_model.bin
        file = f"{name}-{source.sha256[:8]}-{file}"
    path = cache_dir() / "weights" / file
    fetch([source.url], path, sha256=source.sha256, size=source.size)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damage happens to cause
        raise CheckpointError(f"{path.name} holds more than tensors, or is damaged", where=str(path)) from error
    own = net.state_dict()
    published = pretrained.convert(name, content, own)
    fitting = {key: value for key, value in published.items() if own[key].shape == value.shape}
    net.load_state_dict(own | fitting)
    return [key for key in own if key not in fitting]


def _natural(name: str) -> list[tuple[int, str | int]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
