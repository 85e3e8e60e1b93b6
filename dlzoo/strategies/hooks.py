"""A network without what others have hung on its modules, for a while.

FSDP2 and ZeRO-3 gather a module's weights before its forward and give them away after it, and both expect every rank to compute
the same modules in the same order. Where the weights are whole already and each rank has its own number of steps, these hooks
would part the weights again, and wait for ranks that do not come.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["without_hooks"]

HOOKS = ("_forward_pre_hooks", "_forward_hooks")


@contextmanager
def without_hooks(net: nn.Module) -> Iterator[None]:
    """Takes the forward hooks off a network and its parts, and puts them back at the end.

    Args:
        net: the network.
    """
    kept = [(module, name, getattr(module, name)) for module in net.modules() for name in HOOKS]
    try:
        for module, name, _ in kept:
            setattr(module, name, OrderedDict())
        yield
    finally:
        for module, name, hooks in kept:
            setattr(module, name, hooks)
