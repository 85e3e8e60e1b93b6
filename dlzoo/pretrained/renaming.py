"""What every published file needs: its tensors without wrappers, our names for theirs, and a message where they do not fit.

A family whose tensors stand in the file one for one says how the names differ and no more; see `densenet.py`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlzoo.errors import CheckpointError

__all__ = ["COUNTER", "check", "converter", "misfit", "show", "unwrap", "with_counters"]

COUNTER = "num_batches_tracked"
Shape = tuple[int | None, ...]  # None: any size


def converter(
    rules: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]],
) -> Callable[[str, Mapping[str, Any]], dict[str, Tensor]]:
    """The `convert` of a family whose tensors differ from the published ones by their names alone.

    Args:
        rules: pairs of a regular expression and what replaces it, as `re.sub` takes them. Each name goes through all of them in
            turn, so a later rule sees what an earlier one made. A name that no rule finds is of another model.
    """
    compiled = [(re.compile(pattern), ours) for pattern, ours in rules]

    def convert(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
        """A published state dict under our names; the tensors are shared, not copied.

        Raises:
            CheckpointError: there are no tensors in it, or some that this family does not have.
        """
        found, converted, foreign = unwrap(name, state_dict), {}, []
        for theirs, tensor in found.items():
            ours, known = theirs, 0
            for pattern, replacement in compiled:
                ours, count = pattern.subn(replacement, ours)
                known += count
            converted[ours] = tensor
            if not known:
                foreign.append(show(theirs, tuple(tensor.shape)))
        if foreign:
            raise misfit(name, found, unexpected=foreign)
        return with_counters(converted)

    return convert


def unwrap(name: str, state_dict: Any) -> dict[str, Tensor]:
    """The tensors of a file: out of {"state_dict": ...} or {"model": ...}, without "module." before each name.

    Raises:
        CheckpointError: there are none.
    """
    inner = state_dict
    for wrapper in ("state_dict", "model"):
        if isinstance(inner, Mapping) and isinstance(inner.get(wrapper), Mapping):
            inner = inner[wrapper]
    tensors = {}
    if isinstance(inner, Mapping):
        tensors = {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        entries = ", ".join(map(str, list(inner)[:6])) if isinstance(inner, Mapping) else "none"
        raise CheckpointError(
            f"the file does not hold the weights of {name}: there are no tensors in it",
            where=f"a {type(inner).__name__} with the entries: {entries}",
            fix="give the state dict itself, or {'state_dict': ...}",
        )
    if all(key.startswith("module.") for key in tensors):  # torch.nn.DataParallel puts it there
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, with the number of batches behind each running variance: older files do not count them."""
    counted = {}
    for key, tensor in tensors.items():
        counted[key] = tensor
        if key.endswith("running_var"):
            counter = key.removesuffix("running_var") + COUNTER
            counted[counter] = tensors.get(counter, torch.tensor(0))
    return counted


def check(name: str, converted: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuses a file that does not fill the model: a name too few or too many, or more than two layers of another shape.

    The first and the last layer may differ: other image channels, other classes.

    Args:
        name: the model.
        converted: what the file holds, under our names.
        own: the state dict of the model that shall take them.

    Raises:
        CheckpointError: it does not fill the model.
    """
    missing = [show(key, tuple(tensor.shape)) for key, tensor in own.items() if key not in converted]
    unexpected = [show(key, tuple(tensor.shape)) for key, tensor in converted.items() if key not in own]
    other = [key for key in converted if key in own and converted[key].shape != own[key].shape]
    if missing or unexpected or len({key.rsplit(".", 1)[0] for key in other}) > 2:
        shapes = [f"{show(key, tuple(converted[key].shape))} for {show('', tuple(own[key].shape)).strip()}" for key in other]
        fix = "leave arguments that change the architecture at their defaults, or pretrained=False"
        raise misfit(name, converted, missing, unexpected, shapes, fix=fix)


def misfit(
    name: str,
    found: Mapping[str, Tensor],
    missing: Sequence[str] | None = None,
    unexpected: Sequence[str] | None = None,
    other_shape: Sequence[str] = (),
    *,
    looks_like: str = "",
    fix: str = "",
) -> CheckpointError:
    """The error of a file that holds another model: what it looks like, and what it lacks and has too much.

    Args:
        name: the model that was asked for.
        found: what the file holds.
        missing, unexpected: tensors as `show` writes them; None where it was not looked.
        other_shape: the like, of those that have the right name.
        looks_like: what is known of the file; how many tensors it holds, if nothing else.
        fix: what to type instead.
    """
    keys = [key for key in found if not key.endswith(COUNTER)]
    ends = " ... ".join(show(key, tuple(found[key].shape)) for key in (keys[0], keys[-1])) if keys else "counters alone"
    lines = [f"{looks_like or f'{len(keys)} tensors'}: {ends}"]
    for title, tensors in (("missing", missing), ("unexpected", unexpected), ("other shape", other_shape or None)):
        if tensors is not None:
            lines.append(f"{title} {len(tensors)}" + _first(tensors))
    return CheckpointError(f"the file does not hold the weights of {name}", where="\n         ".join(lines), fix=fix)


def show(name: str, shape: Shape) -> str:
    """conv1.weight (64, any, 7, 7)"""
    return f"{name} ({', '.join('any' if size is None else str(size) for size in shape)})"


def _first(tensors: Iterable[str]) -> str:
    names = ", ".join(list(tensors)[:3])
    return f": {names}" if names else ""
