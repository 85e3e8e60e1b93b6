"""What a checkpoint holds, and whether it is this network's. Nothing in one is ever executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


def load_weights(net: "nn.Module", path: Path, model: Mapping[str, Any]) -> None:
    """Puts the weights of a checkpoint into a network.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
    """
    own = net.state_dict()
    weights = {
        key.removeprefix("net."): value for key, value in read_checkpoint(path)["state_dict"].items() if key.startswith("net.")
    }
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    other = [
        f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in weights and own[key].shape != weights[key].shape
    ]
    if missing or unknown or other:
        kinds = (("missing", missing), ("unknown", unknown), ("of another shape", other))
        counts = "; ".join(f"{len(keys)} {kind}: {', '.join(keys[:3])}" for kind, keys in kinds if keys)
        raise CheckpointError(
            f"{path.name} holds another model than {model['_target_'].rsplit('.', 1)[-1]}",
            where=f"{path}: {counts}",
            safe="the file was only read",
            fix="the run directory that the checkpoint came from, or the model that it was trained with",
        )
    net.load_state_dict(weights)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content; plain types and tensors alone are accepted.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than plain types.
    """
    import torch

    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), fix="dlzoo list runs")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damage happens to cause
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path.name} can not be read: {reason[:160]}", where=str(path), fix="last.ckpt beside it"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(f"{path.name} is not a checkpoint of a run", where=str(path))
    return content
