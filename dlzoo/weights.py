"""The weights that a run begins with: those of a published file, or of a run that was made before."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo import pretrained, rundir, zoo
from dlzoo.checkpoints import network_weights
from dlzoo.errors import CheckpointError, ConfigError
from dlzoo.optim.stages import head_prefixes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PUBLISHED", "begin", "begin_with"]

PUBLISHED = "published"


def begin(net: "nn.Module", config: Mapping[str, Any]) -> str:
    """Puts the weights that a run's config asks for into its new network; what to say of it, or ""."""
    mode, source = config["callbacks"].get("transfer", {}).get("mode", ""), config.get("init_from")
    if mode == "scratch":
        return ""
    if source:
        return begin_with(net, source, config["model"])
    if mode and not config["model"].get("pretrained"):
        published = "model.pretrained=true" if "pretrained" in config["model"] else "init_from=published"
        return f"there is nothing to transfer from, and random weights are frozen: {published}, or init_from=RUN"
    return ""


def begin_with(net: "nn.Module", init_from: str, model: Mapping[str, Any]) -> str:
    """Puts weights into a new network; its head stays new where its shape is another.

    Args:
        net: the network.
        init_from: "published", or a run: its directory (its best checkpoint), or one of its checkpoints.
        model: the config that the network was built from.

    Returns:
        a line that says where the weights come from, and what stayed new.

    Raises:
        ConfigError: there are no published weights of this model, or no run is there.
        DataError: the published file can not be downloaded.
        CheckpointError: the weights are another model's.
    """
    name = model["_target_"].rsplit(".", 1)[-1]
    if init_from != PUBLISHED:
        return _from_run(net, init_from, name)
    if name not in pretrained.names():
        fix = "model.pretrained=true" if "pretrained" in model else "init_from=RUN, the directory of a run of yours"
        raise ConfigError(f"there are no published weights for {name}", where="init_from=published", fix=fix)
    new = zoo.load_published(net, name)
    return f"published weights of {name}; new: {', '.join(new) or 'nothing'}"


def _from_run(net: "nn.Module", init_from: str, name: str) -> str:
    path, run = Path(init_from), rundir.find(init_from)
    path = path if path.suffix == ".ckpt" else run.checkpoint("best")
    weights, own, head = network_weights(path), net.state_dict(), head_prefixes(net)
    fits = {key for key, value in weights.items() if key in own and own[key].shape == value.shape}
    # all but the head has to be there, as it is
    misfits = sorted(key for key in {*own, *weights} - fits if not key.startswith(head))
    if misfits:
        theirs = str(run.config["model"]["_target_"]).rsplit(".", 1)[-1]
        raise CheckpointError(
            f"{path.name} of {run.dir} holds another model than {name}: {theirs}"
            if theirs != name
            else f"{path.name} of {run.dir} holds another {name}",
            where=f"init_from={init_from}: {len(misfits)} of {len(own)} tensors differ: {', '.join(misfits[:3])}",
            safe="the file was only read",
            fix=f"model={theirs}" if theirs != name else "the same arguments of the model as in its config.yaml",
        )
    net.load_state_dict({key: weights[key] if key in fits else value for key, value in own.items()})
    new = [
        f"{key} {tuple(own[key].shape)}" + (f", there {tuple(weights[key].shape)}" if key in weights else "")
        for key in own
        if key not in fits
    ]
    return f"weights of {path}; new: {'; '.join(new) or 'nothing'}"
