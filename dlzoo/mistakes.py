"""What is wrong with a command line or a config file, in our words: which word or which line, and the nearest right name.

Hydra says what it could not do; here it is turned into what to type instead. Knows the texts of Hydra's errors, not Hydra.
"""

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError

from dlzoo import schema, zoo
from dlzoo.errors import ConfigError, DlzooError, UnsafeError, did_you_mean, nearest, suggest

GROUPS = (
    *("model", "data", "task", "optimizer", "scheduler", "trainer"),
    *("callbacks", "logger", "experiment", "augment", "debug", "hparams_search"),
)

Composed = Callable[[list[str]], Mapping[str, Any]]  # overrides -> the config that they compose to


def explain(error: Exception, overrides: Sequence[str], config_dir: str | Path | None, composed: Composed) -> DlzooError:
    """The error to raise for one of Hydra's.

    Args:
        error: what Hydra, OmegaConf or the YAML reader raised.
        overrides: what was typed.
        config_dir: the user's own folder of configs.
        composed: composes other overrides, to find out which keys there are.
    """
    text = str(error)
    if isinstance(error, YAMLError):
        return bad_yaml(error, "a config file")
    if match := re.search(r"Could not (?:find|load) '([\w./-]+)/([^'/]+)'", text):
        return _unknown_choice(*match.groups(), overrides, config_dir)
    if match := re.search(r"Could not (?:override|append to) '([^'=]+)|Key '([^']+)' is not in struct", text):
        return _unknown_key(match[1] or match[2], overrides, composed)
    if match := re.search(r"Could not delete[^.]*\. '([^'=]+)' does not exist", text):
        return _unknown_key(match[1], overrides, composed)
    if match := re.search(r"Error parsing override '([^'=]+)'", text):
        word = match[1]
        return ConfigError(f"{word!r} is not key=value", where=word, fix=f"{word}=VALUE, without spaces around the sign")
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = match[1].partition("=")
        fix = f"-m {match[1]} for one run after the other, '{key}=[{value}]' for a list"
        return ConfigError(f"{value!r} are several values", where=match[1], fix=fix)
    if match := re.search(r"(\S+) appears more than once in the final defaults list", text):
        word = override_of(match[1], overrides)
        return ConfigError(f"{match[1]} is chosen twice", where=word, fix=word.lstrip("+"))
    return ConfigError(
        first_line(error), where=" ".join(overrides), fix="key=value, in quotes where the shell would eat a sign"
    )


def bad_yaml(error: Exception, where: str) -> DlzooError:
    """A file that is no YAML; one that names Python objects in it is refused as unsafe."""
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name} line {mark.line + 1}" if mark else where
    problem = str(getattr(error, "problem", "") or first_line(error))
    if "python/" in problem:
        return UnsafeError(
            f"a config holds plain values, and here it names something to run: {problem}",
            where=place,
            safe="nothing was run",
            fix="write plain values",
        )
    return ConfigError(f"no YAML: {problem}", where=place, fix="put that line right; text with a colon in it goes in quotes")


def _unknown_choice(group: str, name: str, overrides: Sequence[str], config_dir: str | Path | None) -> ConfigError:
    known = zoo.list_configs(group, extra=config_dir) or zoo.list_configs(group.split("/")[0], extra=config_dir)
    several = f"{group} can be: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
    where = override_of(group.split("/")[0], overrides)
    if "=" not in where:  # chosen by a file, not on the command line
        where = _line_of(rf"\b{re.escape(group.split('/')[0])}\b.*\b{re.escape(name)}\b", config_dir) or where
    return ConfigError(f"there is no {group} {name!r}", where=where, fix=suggest(name, known) or several)


def _unknown_key(key: str, overrides: Sequence[str], composed: Composed) -> ConfigError:
    what, where = f"the config has no key {key!r}", override_of(key, overrides)
    top = [*GROUPS, *schema.dataclass_parameters(schema.Config)]
    if "." not in key and (near := suggest(key, top)):  # told without composing a second time
        return ConfigError(what, where=where, fix=near)
    with contextlib.suppress(Exception):  # a second mistake in the other words: this one is told first
        config = composed([override for override in overrides if key_of(override) != key])
        config = {name: node for name, node in config.items() if name != "hydra"}
        parent, _, leaf = key.rpartition(".")
        node: Any = config
        for part in parent.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        takes = schema.parameters_of(str(node.get("_target_"))) or {} if isinstance(node, Mapping) else {}
        if leaf in takes:
            return ConfigError(f"no config sets {key!r} yet", where=where, fix=f"+{where}")
        known = config_keys(config)
        here = [*(node if isinstance(node, Mapping) else ()), *takes]
        near = _nearest(key, parent, here, [*known, *GROUPS])
        if not near and here and parent:
            names = [name for name in dict.fromkeys(here) if not name.startswith("_")]
            near = f"{parent} has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
        return ConfigError(what, where=where, fix=near or "python train.py --cfg job, for all keys")
    return ConfigError(what, where=where, fix="python train.py --cfg job, for all keys")


def _nearest(key: str, parent: str, here: Sequence[str], known: Sequence[str]) -> str:
    """One slip away, or the same name elsewhere; else what looks alike beside it, or anywhere if its place is not known."""
    found = nearest(key, [*(f"{parent}.{name}" for name in here if parent), *known], alike=False)
    if not found and here and parent:
        found = [f"{parent}.{name}" for name in nearest(key.rpartition(".")[2], here)]
    elif not found:
        found = nearest(key, known) or nearest(key.rpartition(".")[2], {name.rpartition(".")[2] for name in known})
    return did_you_mean(found)


def config_keys(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a config."""
    if not isinstance(node, Mapping):
        return [prefix]
    return ([prefix] if prefix else []) + [
        key for name, value in node.items() for key in config_keys(value, f"{prefix}.{name}".lstrip("."))
    ]


def key_of(override: str) -> str:
    """The key of a word: "+model@x=resnet20" is about model."""
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def override_of(key: str, overrides: Sequence[str]) -> str:
    """The override that names `key` or something in it."""
    return next((word for word in overrides if key_of(word) == key or key_of(word).startswith(f"{key}.")), key)


def origin(key: str, overrides: Sequence[str], config_dir: str | Path | None) -> str:
    """Where the value of a key was set: the override, else the file and line."""
    for word in reversed(overrides):
        if key_of(word) == key or (key.startswith(f"{key_of(word)}.") and key_of(word) not in GROUPS):
            return f"the command line, {word}"
    leaf = re.compile(rf"^\s*{re.escape(key.rsplit('.', 1)[-1])}\s*:")
    choices = dict(word.split("=", 1) for word in overrides if "=" in word)
    group = key.split(".", 1)[0]
    for folder in zoo.config_dirs(config_dir):
        files = [folder / "experiment" / f"{choices.get('experiment', 'digits_resnet')}.yaml"]
        files += [folder / group / f"{choices[group]}.yaml"] if group in choices else sorted((folder / group).glob("*.yaml"))
        for path in [*files, folder / "train.yaml"]:
            if path.is_file():
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                    if leaf.match(line):
                        return f"{key}, {os.path.relpath(path)} line {number}"
    return key


def _line_of(pattern: str, config_dir: str | Path | None) -> str:
    """The first line of the configs, the user's first, that a pattern is found in."""
    for path in (path for folder in zoo.config_dirs(config_dir) for path in sorted(folder.rglob("*.yaml"))):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if re.search(pattern, line) and not line.lstrip().startswith("#"):
                return f"{os.path.relpath(path)} line {number}"
    return ""


def first_line(error: BaseException | None) -> str:
    """The first line of an error, or its kind where it has no words."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
