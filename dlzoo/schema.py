"""The types of a config, checked before torch is imported.

What a config hands to one of the zoo's own functions is checked against that function's signature, read from its source text
without running it: the signature is the schema, and a new model brings its own. What goes to another library is checked against
the dataclasses of foreign.py, and the top level itself against the one below.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dlzoo.errors import ConfigError, suggest
from dlzoo.foreign import FOREIGN

Type = Callable[[Any], bool]


@dataclass(frozen=True)
class Parameter:
    """One argument of a call: its annotation as written, and whether it can be left out."""

    annotation: str
    required: bool = False


# --- the top level. The annotations stay text (the __future__ above) and are read by `_type`, with these ranges

PositiveInt = NonNegativeInt = int
PositiveFloat = NonNegativeFloat = Fraction = float


@dataclass
class Config:
    """The top level of a run's config: configs/train.yaml."""

    model: dict
    data: dict
    task: dict
    optimizer: dict
    scheduler: dict
    trainer: dict
    callbacks: dict
    logger: dict
    name: str
    seed: NonNegativeInt = 0
    data_dir: str = "./data"
    runs_dir: str = "runs"
    run_dir: str | None = None
    ckpt_path: str | None = None
    init_from: str | None = None
    test: bool = True
    channels_last: bool = False
    compile: bool = False
    optimized_metric: str = "val/loss"
    optimized_mode: Literal["min", "max"] = "min"
    tags: list[str] = field(default_factory=list)


BUILT = ("model", "data", "task", "optimizer", "scheduler", "trainer")  # the parts of a run that a `_target_` builds


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a config: the dotted key, a sentence, and a hint or ''."""

    key: str
    text: str
    hint: str = ""


def faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Everything that is wrong with the types, names and ranges of a whole composed config."""
    yield from _check(config, dataclass_parameters(Config), "", "the config")
    yield from _calls(config, "")
    parts = {name: node if isinstance(node := config.get(name), Mapping) else {} for name in BUILT}
    yield from (Fault(name, f"{name} names nothing to build") for name in BUILT if not parts[name].get("_target_"))
    of_model = ("num_classes", "in_channels", "vocab_size", "source_vocab_size", "target_vocab_size", "features", "horizon")
    for name, key in (*(("model", key) for key in of_model), ("task", "num_classes")):
        ours, theirs = parts[name].get(key), parts["data"].get(key)
        if _whole(ours) and _whole(theirs) and ours != theirs:  # on a GPU it would be an assert deep in a kernel
            yield Fault(f"{name}.{key}", f"{name}.{key} is {ours}, and the data have {theirs}")
    if parts["model"].get("tied") == "all" and parts["data"].get("joint") is False:
        yield Fault("model.tied", "model.tied is all, one table for both languages, and data.joint is false", "model.tied=head")
    reads, given = (parts[name].get("context") for name in ("model", "data"))
    if _whole(reads) and _whole(given) and reads < given:
        yield Fault("data.context", f"data.context is {given}, and the model reads {reads} tokens", f"model.context={given}")


def check_call(node: Mapping[str, Any], where: str) -> None:
    """Checks one mapping with a `_target_`.

    Raises:
        ConfigError: an unknown argument, or a value of the wrong type.
    """
    for fault in _calls(node, ""):
        raise ConfigError(fault.text, where=where, fix=fault.hint)


def dataclass_parameters(schema: type) -> dict[str, Parameter]:
    """The arguments of one of the dataclasses."""
    return {f.name: Parameter(str(f.type), f.default is MISSING and f.default_factory is MISSING) for f in fields(schema)}


def dataclass_faults(given: Mapping[str, Any], schema: type, key: str) -> Iterator[Fault]:
    """What is wrong with a mapping that one of the dataclasses describes."""
    yield from _check(given, dataclass_parameters(schema), key, key)


@functools.cache
def parameters_of(target: str) -> dict[str, Parameter] | None:
    """The arguments of a target, without importing it; None where they cannot be known (it takes **kwargs, or is not there)."""
    if target in FOREIGN:
        return dataclass_parameters(FOREIGN[target])
    module, _, name = target.rpartition(".")
    return _signature(module, name) if module.startswith("dlzoo.") else None


def _calls(node: Any, key: str) -> Iterator[Fault]:
    """The faults of every mapping with a `_target_` in `node`."""
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _calls(value, f"{key}.{index}")
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        target = str(node["_target_"])
        known = parameters_of(target)
        if known is not None:
            arguments = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
            yield from _check(arguments, known, key, target.rsplit(".", 1)[-1], partial=bool(node.get("_partial_")))
    for name, value in node.items():
        yield from _calls(value, f"{key}.{name}" if key else str(name))


# what the run hands over itself, so that a config need not: the task's parts, the trainer's callbacks
GIVEN_BY_THE_RUN = frozenset({"net", "optimizer", "scheduler", "total_steps", "params"})

# what a task says of the model: one of another kind has no such argument
OF_A_TASK = {
    "model.num_classes": "a model that classifies, or the task and data for this one, such as experiment=stdlib_gpt model=NAME",
    "model.vocab_size": "a language model, such as model=gpt_char",
    "model.source_vocab_size": "a translator, such as model=transformer_small",
    "model.features": "a model that forecasts, such as model=forecaster_lstm",
}


def _check(
    given: Mapping[str, Any], known: Mapping[str, Parameter], prefix: str, owner: str, partial: bool = False
) -> Iterator[Fault]:
    for name, value in given.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if name not in known:
            yield Fault(key, f"{prefix or owner} has no key {name!r}", suggest(str(name), known) or OF_A_TASK.get(key, ""))
        elif not _type(known[name].annotation)(value):
            hint = suggest(value, _choices(known[name].annotation)) if isinstance(value, str) else ""
            yield Fault(key, f"{key} is {value!r}: expected {in_words(known[name].annotation)}", hint)
    for name, parameter in known.items():
        if parameter.required and not partial and name not in given and name not in GIVEN_BY_THE_RUN:
            yield Fault(prefix, f"{prefix or owner} lacks {name!r}")


# --- signatures from source text


@functools.cache
def module_tree(name: str) -> ast.Module | None:
    """The source of one of the zoo's modules, parsed; None where there is no such file."""
    path = Path(__file__).resolve().parent.parent.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _signature(module: str, name: str) -> dict[str, Parameter] | None:
    tree = module_tree(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _parameters(node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    return _parameters(item)
            for base in node.bases:  # a class without an __init__ takes its parent's
                if isinstance(base, ast.Name):
                    return _signature(_origin(tree, base.id, module), base.id)
    return None


def _origin(tree: ast.Module, name: str, module: str) -> str:
    """The module that `name` comes from, in the module `tree`."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return node.module or ""
    return module


def _parameters(function: ast.FunctionDef) -> dict[str, Parameter] | None:
    args = function.args
    if args.kwarg:
        return None
    positional = [*args.posonlyargs, *args.args]
    first_default = len(positional) - len(args.defaults)
    found = {
        arg.arg: Parameter(ast.unparse(arg.annotation) if arg.annotation else "Any", index < first_default)
        for index, arg in enumerate(positional)
        if arg.arg != "self"
    }
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found[arg.arg] = Parameter(ast.unparse(arg.annotation) if arg.annotation else "Any", default is None)
    return found


# --- annotations as tests of a value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


TYPES: dict[str, tuple[Type, str]] = {
    "int": (_whole, "a whole number"),
    "float": (_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "Path": (lambda value: isinstance(value, str | Path), "a path"),
    "dict": (lambda value: isinstance(value, Mapping), "a mapping"),
    "list": (lambda value: isinstance(value, list | tuple), "a list"),
    "tuple": (lambda value: isinstance(value, list | tuple), "a list"),
    "Sequence": (lambda value: isinstance(value, list | tuple), "a list"),
    "PositiveInt": (lambda value: _whole(value) and value > 0, "a whole number above 0"),
    "NonNegativeInt": (lambda value: _whole(value) and value >= 0, "a whole number, 0 or above"),
    "PositiveFloat": (lambda value: _number(value) and value > 0, "a number above 0"),
    "NonNegativeFloat": (lambda value: _number(value) and value >= 0, "a number, 0 or above"),
    "Fraction": (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1"),
}


@functools.cache
def _type(annotation: str) -> Type:
    return _read(ast.parse(annotation, mode="eval").body)[0]


def in_words(annotation: str) -> str:
    """An annotation as words for a message: "int | None" is "a whole number or null"."""
    return _read(ast.parse(annotation, mode="eval").body)[1]


def _read(node: ast.expr) -> tuple[Type, str]:
    match node:
        case ast.Constant(value=None):
            return (lambda value: value is None), "null"
        case ast.Name(id=name) if name in TYPES:
            return TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            (one, one_words), (other, other_words) = _read(left), _read(right)
            return (lambda value: one(value) or other(value)), f"{one_words} or {other_words}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            allowed = ast.literal_eval(choices)
            allowed = allowed if isinstance(allowed, tuple) else (allowed,)
            typed = {(type(choice), choice) for choice in allowed}
            words = "one of " + ", ".join(map(str, allowed)) if len(allowed) > 1 else str(allowed[0])
            return (lambda value: not isinstance(value, list | Mapping) and (type(value), value) in typed), words
        case ast.Subscript(value=ast.Name(id="list" | "tuple" | "Sequence"), slice=inner):
            items = [item for item in (inner.elts if isinstance(inner, ast.Tuple) else [inner]) if not _is_ellipsis(item)]
            tests = [_read(item) for item in items]
            words = "a list of: " + ", ".join(dict.fromkeys(words for _, words in tests))
            return (
                lambda value: TYPES["list"][0](value) and all(any(test(item) for test, _ in tests) for item in value)
            ), words
        case ast.Subscript(value=ast.Name(id="dict" | "Mapping")):
            return TYPES["dict"]
    return (lambda value: True), "anything"


def _choices(annotation: str) -> list[str]:
    """The words that a value of this type can be: those of a Literal, true and false."""
    nodes = list(ast.walk(ast.parse(annotation, mode="eval")))
    found = [str(node.value) for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str | int)]
    return found + ["true", "false"] * any(isinstance(node, ast.Name) and node.id == "bool" for node in nodes)


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
