"""Less of what Lightning does around each hook of each step, none of which a run without a profiler needs.

Around every hook of every callback, those that do nothing too, Lightning opens a context for its profiler, some hundred times
a step. For a tiny network that is more time than its kernels take; for a large one it is nothing.
"""

import contextlib
from collections.abc import Iterable

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler

__all__ = ["NoProfiler", "leave_out_empty_hooks"]

EACH_STEP = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
_NOTHING = contextlib.nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measures nothing, with one context for all that it does not measure: Lightning's own makes a generator each time."""

    def profile(self, action_name: str) -> contextlib.nullcontext[None]:  # type: ignore[override]
        return _NOTHING


def leave_out_empty_hooks(callbacks: Iterable[L.Callback]) -> None:
    """Lightning passes over a hook that is None: so those of a step that a callback does not have are made None for it."""
    for callback in callbacks:
        for hook in EACH_STEP:
            if getattr(type(callback), hook) is getattr(L.Callback, hook) and hook not in vars(callback):
                setattr(callback, hook, None)
