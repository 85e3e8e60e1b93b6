"""Out of memory, in words that say what to type."""

from collections.abc import Mapping
from typing import Any

from dlzoo.errors import OutOfMemoryError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had too little memory, whichever library says so."""
    text = f"{type(error).__name__}: {error}"
    return (
        isinstance(error, MemoryError)
        or "OutOfMemory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def out_of_memory(error: BaseException, config: Mapping[str, Any] | None = None, step: int | None = None) -> OutOfMemoryError:
    """The error for the user, with three things to type that fit the run.

    Args:
        error: what was raised.
        config: the run's; without it the values are named in general.
        step: where it happened.
    """
    data = (config or {}).get("data", {})
    key = "batch_tokens" if "batch_tokens" in data else "batch_size"
    size = data.get(key)
    accumulated = (config or {}).get("trainer", {}).get("accumulate_grad_batches", 1)
    half = max(1, size // 2) if size else "HALF"
    lighter = "trainer.precision=bf16-mixed"
    if config and str(config["trainer"]["precision"]) != "32":
        lighter = "trainer=fsdp" if config["trainer"]["accelerator"] not in ("cpu",) else "a smaller model=..."
    return OutOfMemoryError(
        "out of memory",
        where=("" if step is None else f"step {step}: ") + (str(error).strip() or type(error).__name__).splitlines()[0][:200],
        safe="the checkpoints written so far",
        fix=f"data.{key}={half} trainer.accumulate_grad_batches={2 * accumulated} (the same steps), "
        f"data.{key}={half}, or {lighter}",
    )
