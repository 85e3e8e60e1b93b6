"""Checkpoints on disk: written whole or not at all, checked when they are read, the newest good one found by looking.

A checkpoint is a zip of tensors and plain values, as torch.save writes it; torch stores a CRC-32 of each part, which is what
tells a flipped bit. Nothing in one is ever executed. A sharded checkpoint (FSDP2, ZeRO) is a folder of such files.
"""

import contextlib
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo import faults, opcodes, sharded
from dlzoo.disk import sync_folder
from dlzoo.errors import CheckpointError, UnsafeError

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("dlzoo")

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
TEMPORARY = ".tmp-"  # how the name of an unfinished file begins


def load_weights(net: "nn.Module", path: Path, model: Mapping[str, Any]) -> None:
    """Puts the weights of a checkpoint into a network.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
        UnsafeError: it holds more than tensors and plain values.
    """
    own = net.state_dict()
    weights = network_weights(path)
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


def network_weights(path: Path) -> dict[str, Any]:
    """The network's tensors in a checkpoint, by the names that the network gives them.

    Raises:
        CheckpointError: the file is missing or damaged.
        UnsafeError: it holds more than tensors and plain values.
    """
    found = read_checkpoint(path)["state_dict"]
    return {key.removeprefix("net."): value for key, value in found.items() if key.startswith("net.")}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, of one file or of a folder of shares; plain types and tensors alone are accepted.

    Raises:
        CheckpointError: it is missing or damaged.
        UnsafeError: it holds more than plain types.
    """
    import torch

    if path.is_dir():
        return sharded.read(path)
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), fix="dlzoo list runs")
    if opcodes.compressed(path):
        raise UnsafeError(
            f"{path.name} is refused: it is packed, and a checkpoint never is; it could fill the memory",
            where=str(path),
            safe="nothing was unpacked",
            fix="a checkpoint that you trust, or only its weights as safetensors",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damage happens to cause
        text = str(error).strip()
        if name := opcodes.would_run(path):
            raise UnsafeError(
                f"{path.name} is refused: it holds more than tensors and plain values",
                where=f"{path}: it names {name[:160]}",
                safe="nothing in it was run",
                fix="a checkpoint that you trust, or only its weights as safetensors",
            ) from error
        reason = text.splitlines()[0] if text else type(error).__name__
        raise CheckpointError(
            f"{path.name} can not be read: {reason[:160]}", where=str(path), fix="another checkpoint beside it"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(f"{path.name} is not a checkpoint of a run", where=str(path))
    return content


def write(content: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint's content to `path` and down to the disk. The caller renames it: see `publish`.

    Raises:
        OSError: full, forbidden, too large; what was written of it is removed.
    """
    import torch

    try:
        with open(path, "wb") as file:
            torch.save(dict(content), faults.while_saving(file))
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        # torch's writer turns the disk's error into one of its own, with ours as the context
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, Exception) and cause is not None:
            raise cause from None
        raise


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished checkpoint its name. A `last.ckpt` that was there becomes `previous.ckpt`; one of them always exists.

    Raises:
        OSError: the folder can not be written.
    """
    if path.name == LAST and path.exists():
        _keep(path, path.with_name(PREVIOUS))
    if path.is_dir() or temporary.is_dir():
        old = path.with_name(f"{TEMPORARY}old-{path.name}")
        _remove(old)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        _remove(old)
    else:
        os.replace(temporary, path)
    sync_folder(path.parent)


def keep(path: Path, name: str) -> None:
    """The same checkpoint under another name, without its bytes a second time where the disk can do that."""
    _keep(path, path.with_name(name))
    sync_folder(path.parent)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; those that are not are named and set aside as *.bad.

    Returns:
        its path; None where the folder holds no checkpoint at all.

    Raises:
        CheckpointError: there are some, and none is whole.
    """
    names = [folder / LAST, folder / PREVIOUS, *sorted(folder.glob("epoch_*.ckpt"), reverse=True), folder / BEST]
    found = [path for path in names if path.exists()]
    bad = []
    for path in found:
        reason = damage(path)
        if not reason:
            if bad:
                log.warning("going on from %s", path)
            return path
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path)  # a pickle that would run something is told as such, not as damage
        bad.append(f"{path.name}: {reason}")
        log.warning("%s is damaged (%s); it is kept as %s.bad", path, reason, path.name)
        os.replace(path, path.with_name(f"{path.name}.bad"))
    if bad:
        raise CheckpointError(
            "no checkpoint of the run can be read",
            where=f"{folder}: {'; '.join(bad)}",
            safe="the files were renamed, to *.bad",
            fix="start the run anew",
        )
    return None


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, "" where it is whole: every byte that counts is read and compared with its CRC-32."""
    if path.is_dir():
        parts = [part for part in sorted(path.rglob("*")) if part.is_file()]
        if not parts:
            return "it is empty"
        found = (f"{part.name}: {why}" for part in parts if part.suffix == ".pt" and (why := damage(part)))
        return next(found, "") or sharded.damage(path)
    if opcodes.compressed(path):  # told without unpacking it
        return "it is packed, and a checkpoint never is"
    try:
        with zipfile.ZipFile(path) as parts:
            broken = parts.testzip()
            if broken:
                return f"{broken.rsplit('/', 1)[-1]} does not have the bytes that were written"
            return "" if any(name.endswith("data.pkl") for name in parts.namelist()) else "it is no checkpoint"
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        size = path.stat().st_size if path.is_file() else 0
        return f"{error}, {size:,} bytes"


def sweep(folder: Path) -> None:
    """Removes what an interrupted save left behind."""
    for path in folder.glob(f"{TEMPORARY}*"):
        _remove(path)


def _keep(path: Path, other: Path) -> None:
    if path.is_dir():
        _remove(other)
        os.replace(path, other) if other.name == PREVIOUS else shutil.copytree(path, other)
        return
    temporary = other.with_name(f"{TEMPORARY}{other.name}")
    _remove(temporary)
    try:
        os.link(path, temporary)
    except OSError:  # a disk without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, other)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
