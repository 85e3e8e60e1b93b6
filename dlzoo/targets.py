"""What a config may call: a config is data, and data must not be able to run a program.

A `_target_` is called if it is

- a function or class of dlzoo's own layers, defined in the module that the name says;
- one of the exact names in foreign.py (the whole list of what is called in other libraries);
- in a package that the user named on the command line (`--allow mypackage`), never in a config or an environment file.

It is checked twice: the name before anything is imported, and the object that it resolves to before it is called, because a
name can be an alias: `mypackage.run` may be os.system. Hydra calls what its own config node names; that is checked here too.
"""

import ast
import contextlib
import functools
import importlib
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dlzoo import schema
from dlzoo.errors import ConfigError, UnsafeError, suggest
from dlzoo.foreign import FOREIGN

OWN_LAYERS = ("models", "tasks", "datamodules", "callbacks", "optim", "strategies")  # of dlzoo: what a config may name

# packages that `--allow` refuses: every one of them has a function that runs what it is given
NOT_A_USERS = frozenset(sys.stdlib_module_names) | {
    *("dlzoo", "torch", "torchvision", "lightning", "pytorch_lightning", "hydra", "omegaconf", "numpy", "yaml"),
    *("cloudpickle", "dill", "joblib", "pip", "setuptools", "pytest", "_pytest", "IPython"),
}

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_allowed: list[str] = []


@contextlib.contextmanager
def allowed(packages: Sequence[str]) -> Iterator[None]:
    """Within it, a config may also call functions and classes of these packages.

    Args:
        packages: names such as "mypackage" or "mypackage.models", as the user typed them.

    Raises:
        ConfigError: there is no such package.
        UnsafeError: it is a package that can run anything: Python's own, torch, ...
    """
    for package in packages:
        _require_package(package)
    before = list(_allowed)
    _allowed.extend(package for package in packages if package not in before)
    try:
        yield
    finally:
        _allowed[:] = before


def named(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes `--allow PACKAGE` out of a command line: the other words, and the packages, which may lie in the current folder."""
    rest, packages, words = [], [], iter(words)
    for word in words:
        if word == "--allow":
            packages.append(next(words, ""))
        elif word.startswith("--allow="):
            packages.append(word.partition("=")[2])
        else:
            rest.append(word)
    if packages and "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the last place: nothing there takes the name of a package that is installed
    return rest, packages


def flags() -> list[str]:
    """The words that allow another process of ours what is allowed here: ["--allow", "mypackage"]."""
    return [word for package in _allowed for word in ("--allow", package)]


def check_target(target: Any, where: str = "_target_") -> None:
    """Checks a target by its name alone; nothing is imported.

    Raises:
        UnsafeError: a config may not call it.
        ConfigError: dlzoo has no such name.
    """
    if not isinstance(target, str) or not _NAME.fullmatch(target):
        raise _refusal(target, where)
    parts = target.split(".")
    if any(part.startswith("_") for part in parts):
        raise _refusal(target, where)
    if target in FOREIGN or _package(target):
        return
    if parts[0] != "dlzoo" or len(parts) < 3 or parts[1] not in OWN_LAYERS:
        raise _refusal(target, where)
    _check_own(target, parts, where)


def locate(target: str, where: str = "_target_") -> Callable[..., Any]:
    """The function or class that a `_target_` names, if a config may call it.

    Raises:
        UnsafeError: it may not; what the name resolves to is what counts.
        ConfigError: there is no such name.
    """
    check_target(target, where)
    module, *rest = _importable(target)
    found: Any = importlib.import_module(module)
    try:
        for name in rest:
            found = getattr(found, name)
    except AttributeError as error:
        raise ConfigError(f"there is no {target!r}: {error}", where=where) from error
    package = _package(target)
    root = package or (module if target.startswith("dlzoo.") else target.split(".")[0])
    if len(rest) != 1 or not all(_lives_in(each, root) for each in _unwrapped(found)):
        home = f"{getattr(found, '__module__', '?')}.{getattr(found, '__qualname__', type(found).__name__)}"
        raise UnsafeError(
            f"{target!r} is {home}, and no function or class of {root}",
            where=where,
            safe="nothing was run",
            fix="name a function or class that is written there",
        )
    return found


def check_hydra(node: Mapping[str, Any]) -> None:
    """Checks the `hydra` node of a composed config: Hydra itself calls what callbacks, launcher, sweeper and logging name.

    Raises:
        UnsafeError: it names something to call, sets variables, or looks for configs elsewhere.
    """
    own = {"launcher": "hydra._internal.core_plugins.basic_launcher", "sweeper": "hydra._internal.core_plugins.basic_sweeper"}
    wrong = [f"hydra.{part}" for part in ("callbacks", "searchpath") if node.get(part)]
    wrong += [f"hydra.{part}" for part, home in own.items() if _parent(node.get(part, {}).get("_target_")) != home]
    for part in ("job_logging", "hydra_logging"):  # logging's own configs can call anything, by "()", "class" or "ext://"
        if any(value for key, value in (node.get(part) or {}).items() if key not in ("version", "disable_existing_loggers")):
            wrong.append(f"hydra.{part}")
    if node.get("job", {}).get("env_set"):
        wrong.append("hydra.job.env_set")
    if wrong:
        raise _hydra_refusal(wrong[0])


def check_words(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Checks what has to be refused before Hydra composes, because composing would already import it.

    Args:
        overrides: the words of a command line.
        folders: where configs are looked for.

    Raises:
        UnsafeError: a word changes how Hydra itself works, or a train.yaml adds folders to look in.
    """
    for word in overrides:
        key = word.lstrip("+~").split("=", 1)[0]
        if re.match(r"hydra\b", key) and not key.startswith(_HYDRA_MAY):
            raise _hydra_refusal(word)
    for path in (folder / "train.yaml" for folder in folders):
        if path.is_file() and _has_key(path, "searchpath"):
            raise _hydra_refusal(f"hydra.searchpath in {path}")


_HYDRA_MAY = (
    *("hydra.sweep.", "hydra.sweeper.params", "hydra.sweeper.max_batch_size", "hydra.run.dir", "hydra.output_subdir"),
    *("hydra.job.name", "hydra.job.num", "hydra.job.id", "hydra.verbose", "hydra.mode", "hydra=quiet"),
)


def _check_own(target: str, parts: list[str], where: str) -> None:
    """The name must be written in one of our files: not imported there, not inside something else."""
    module, *rest = _importable(target)
    tree = schema.module_tree(module)
    written = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)] if tree else []
    if len(rest) == 1 and rest[0] in written:
        return
    bound = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
             for alias in node.names} if tree else set()  # fmt: skip
    if not rest or rest[0] in bound | set(written) | sys.stdlib_module_names | {name.split(".")[0] for name in FOREIGN}:
        raise _refusal(target, where)
    near = suggest(rest[0], written) if len(rest) == 1 else ""
    raise ConfigError(f"there is no {target!r}", where=where, fix=near or "dlzoo list, for what there is")


def _importable(target: str) -> list[str]:
    """The longest beginning of a dotted name that is a module, and the names behind it."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if parts[0] == "dlzoo":
            if schema.module_tree(module) is not None:
                return [module, *parts[end:]]
        else:
            with contextlib.suppress(ModuleNotFoundError):
                if importlib.util.find_spec(module) is not None:
                    return [module, *parts[end:]]
    if parts[0] == "dlzoo":
        return [".".join(parts[:2]), *parts[2:]]
    raise ConfigError(
        f"there is no package {parts[0]!r}", where=target, fix=f"pip install {parts[0]}, or its folder beside you"
    )


def _unwrapped(found: Any) -> Iterator[Any]:
    """An object and everything that it stands for: partials, decorators, bound methods."""
    seen = 0
    while seen < 20:
        seen += 1
        if isinstance(found, functools.partial):
            found = found.func
        elif isinstance(found, types.MethodType):
            found = found.__func__
        else:
            yield found
            inner = getattr(found, "__dict__", {}).get("__wrapped__")
            if inner is None or isinstance(found, type):
                return
            found = inner


def _lives_in(found: Any, root: str) -> bool:
    """Whether this is a class or a function, written in `root` at the top level of a module."""
    if isinstance(found, types.FunctionType):
        # what functools.wraps copies says where the inner one lives: the outermost may be written in another library
        home = found.__module__ if "__wrapped__" in found.__dict__ else found.__globals__.get("__name__")
    elif isinstance(found, type) or hasattr(found, "__wrapped__"):
        home = found.__module__
    else:
        return False
    at_the_top = "." not in getattr(found, "__qualname__", "")
    return at_the_top and isinstance(home, str) and (home == root or home.startswith(f"{root}."))


def _has_key(path: Path, key: str) -> bool:
    def inside(node: Any) -> bool:
        if isinstance(node, Mapping):
            return any(str(name).rpartition(".")[2] == key or inside(value) for name, value in node.items())
        return isinstance(node, list) and any(map(inside, node))

    try:
        return inside(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError):
        return False  # Hydra will say so


def _package(target: str) -> str | None:
    return next((package for package in _allowed if target.startswith(f"{package}.")), None)


def _require_package(package: str) -> None:
    top = str(package).split(".")[0]
    if not isinstance(package, str) or not _NAME.fullmatch(f"{package}.x") or top in NOT_A_USERS:
        raise UnsafeError(
            f"{package!r} is no package of yours",
            where=f"--allow {package}",
            safe="nothing was run",
            fix="name the package that your config's _target_ begins with; Python's own and torch's can run anything",
        )
    if importlib.util.find_spec(top) is None:
        raise ConfigError(
            f"there is no package {top!r}", where=f"--allow {package}", fix=f"pip install {top}, or its folder here"
        )


def _parent(target: Any) -> str:
    return target.rpartition(".")[0] if isinstance(target, str) else ""


def _refusal(target: Any, where: str) -> UnsafeError:
    shown = repr(target) if len(repr(target)) < 120 else repr(target)[:117] + "..."
    top = target.split(".")[0] if isinstance(target, str) and _NAME.fullmatch(target) else "builtins"
    fix = "name a target of dlzoo, or build the object in Python"
    if top not in NOT_A_USERS:
        fix = f"--allow {top}, on the command line, if that package is yours and you trust the config"
    return UnsafeError(f"{shown} is not on the list of what a config may call", where=where, safe="nothing was run", fix=fix)


def _hydra_refusal(what: str) -> UnsafeError:
    return UnsafeError(
        "a config or a command line may not change what Hydra itself calls",
        where=what,
        safe="nothing was run",
        fix="leave it out; --config-dir FOLDER looks for configs in a folder of yours",
    )
