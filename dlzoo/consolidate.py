"""`dlzoo consolidate`: the weights of a run as one file that needs neither dlzoo nor the engine that trained it."""

import json
import os
from pathlib import Path

from dlzoo import checkpoints, rundir
from dlzoo.errors import StorageError

__all__ = ["consolidate"]


def consolidate(run: str | Path, which: str = "best") -> tuple[Path, dict[str, int]]:
    """Writes model.safetensors into a run's directory: the network's weights and buffers by name, from one file or many shares.

    Its header names the model and its arguments, the classes and the preprocessing, as text.

    Args:
        run: the run's directory, or one of its checkpoints.
        which: "best" or "last", where `run` is a directory.

    Returns:
        the file, and what it holds: the numbers of tensors, of values and of bytes.

    Raises:
        ConfigError: no run is there, or its shares are DeepSpeed's and DeepSpeed is not installed.
        CheckpointError: it has no checkpoint, or a damaged one.
        UnsafeError: the checkpoint holds more than tensors and plain values.
        StorageError: the file can not be written.
    """
    from safetensors.torch import save_file

    found = rundir.find(run)
    path = Path(run) if Path(run).suffix == ".ckpt" else found.checkpoint(which)
    weights = checkpoints.network_weights(path)
    # tied weights are one tensor in memory; in the file each has its own bytes
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    summary = found.summary
    header = {
        "model": json.dumps(found.config["model"]),
        "checkpoint": path.name,
        "classes": json.dumps(summary.get("classes", [])),
        "preprocess": json.dumps(summary.get("preprocess", {})),
    }
    target, temporary = found.dir / "model.safetensors", found.dir / f".tmp-model-{os.getpid()}.safetensors"
    try:
        save_file(tensors, temporary, metadata=header)
        os.replace(temporary, target)
    except OSError as error:
        raise StorageError(f"{target.name} can not be written: {error.strerror}", where=str(found.dir)) from error
    finally:
        temporary.unlink(missing_ok=True)
    values = sum(tensor.numel() for tensor in tensors.values())
    return target, {"tensors": len(tensors), "values": values, "bytes": target.stat().st_size}
