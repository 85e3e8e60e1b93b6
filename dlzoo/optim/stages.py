"""A network as a row of stages, from its input to its head: what is frozen together, and shares a rate.

The head is the child named `head`, which every network of the zoo that classifies has; without one, the last child. A child
named `stages`, `blocks`, `layers` or `features` that holds modules in a row is opened: each of them is a stage. All in front of
it is the first stage (the stem); what follows it, such as a last norm, belongs to the last of them. A network that is not built
so has a stage for each child. Networks of timm say themselves what their stages are (`group_matcher`).
"""

from itertools import chain, takewhile

from torch import nn

__all__ = ["head_prefixes", "stages"]

OPENED = ("stages", "blocks", "layers", "features")


def stages(net: nn.Module) -> dict[str, list[str]]:
    """The stages by name, first to last, each with the names of its parameters; the head is the last. None is left out.

    Args:
        net: any network with a head.

    Raises:
        ValueError: there is nothing but a head, or not even that.
    """
    found = _of_timm(net) or _of_children(net)
    if len(found) < 2:
        raise ValueError(f"{type(net).__name__} has no stages in front of a head: {', '.join(found) or 'no parameters'}")
    return found


def head_prefixes(net: nn.Module) -> tuple[str, ...]:
    """What the names of all that is in the head begin with: ("head.",); several where it is in several places."""
    *others, names = stages(net).values()
    path = _common(names).split(".")
    for depth in range(1, len(path) + 1):  # the largest module that holds nothing but the head
        shared = ".".join(path[:depth]) + "."
        if shared != "." and not any(name.startswith(shared) for name in chain(*others)):
            return (shared,)
    return tuple({f"{name.rpartition('.')[0]}." for name in names})


def _of_children(net: nn.Module) -> dict[str, list[str]]:
    children = {name: [f"{name}.{each}" for each, _ in child.named_parameters()] for name, child in net.named_children()}
    children = {name: names for name, names in children.items() if names}
    head = "head" if "head" in children else next(reversed(children), "")
    before: list[str] = [name for name, _ in net.named_parameters(recurse=False)]  # a class token, places
    found: dict[str, list[str]] = {}
    last = ""  # the stage that what follows belongs to, once a row of them has been opened
    for name, names in children.items():
        child = net.get_submodule(name)
        if name == head:
            continue
        if name in OPENED and isinstance(child, nn.Sequential | nn.ModuleList):
            if not last and found:
                found = {"stem": list(chain.from_iterable(found.values()))}
            for number in range(len(child)):
                if inner := [each for each in names if each.startswith(f"{name}.{number}.")]:
                    last = f"{name}.{number}"
                    found[last] = inner
        elif last:
            found[last] += names
        else:
            found[name] = names
    if before and found:
        first = next(iter(found))
        found[first] = before + found[first]
    if head:
        found[head] = children[head]
    return found


def _of_timm(net: nn.Module) -> dict[str, list[str]]:
    """What timm's own matcher says, of the network or of the only child of a wrapper round it; the head is its classifier."""
    children = [("", net), *((f"{name}.", child) for name, child in net.named_children())]
    prefix, inner = next(((prefix, module) for prefix, module in children if hasattr(module, "group_matcher")), ("", None))
    if inner is None or len(list(inner.parameters())) != len(list(net.parameters())):
        return {}
    from timm.models import group_parameters

    groups = group_parameters(inner, inner.group_matcher(coarse=True))
    *found, last = ([f"{prefix}{name}" for name in groups[number]] for number in sorted(groups))
    classifier = inner.get_classifier()
    heads = classifier if isinstance(classifier, tuple | list) else (classifier,)
    of_head = {id(parameter) for module in heads if isinstance(module, nn.Module) for parameter in module.parameters()}
    head = [name for name in last if id(net.get_parameter(name)) in of_head] or last
    if found:  # what stands between the last stage and the classifier
        found[-1] += [name for name in last if name not in head]
    named: dict[str, list[str]] = {}
    for number, names in enumerate([*found, head]):
        shared = _common(names).removeprefix(prefix.rstrip("."))
        named[shared.lstrip(".") if shared and shared not in named else f"group {number}"] = names
    return named


def _common(names: list[str]) -> str:
    """The module that all these parameters are in: "stages.0", "" for the network itself."""
    paths = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)
