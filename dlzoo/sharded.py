"""Checkpoints that several processes wrote together, FSDP2's and DeepSpeed's: folders of shares, read as one; nothing is run.

Both engines keep some of it as pickles and load those with pickle itself. Here each is read with the short list of names below,
which only build numbers, shapes and tensors; any other name is refused.
"""

import contextlib
import io
import os
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import CheckpointError, ConfigError, UnsafeError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.checkpoint import FileSystemReader

__all__ = ["damage", "fsdp_reader", "kind", "read", "reading", "safe_planner", "trust_deepspeed", "world_size"]

# what the index of FSDP2's folder is made of
INDEX = {
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "Path"},
    "torch": {"Size", "device"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
        *("TensorProperties", "_MEM_FORMAT_ENCODING", "StorageMeta"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
}
DTYPES = re.compile(r"(float|bfloat|complex|u?int)\d+|bool")

# what DeepSpeed's files hold besides tensors and plain values
DEEPSPEED = (
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
)


def kind(path: Path) -> str:
    """fsdp, deepspeed, or "" for anything else."""
    if not path.is_dir():
        return ""
    if (path / ".metadata").is_file():
        return "fsdp"
    return "deepspeed" if any(path.glob("*/*model_states.pt")) else ""


def read(path: Path, weights: bool = True) -> dict[str, Any]:
    """A folder as if it were one file: whole tensors under `state_dict`, on the CPU, and all else that was saved beside them.

    Args:
        path: the folder.
        weights: put the shares together; otherwise `state_dict` is empty.

    Raises:
        CheckpointError: it is no such folder, or damaged.
        UnsafeError: it holds more than tensors and plain values.
        ConfigError: it is DeepSpeed's, and DeepSpeed is not installed.
    """
    found = kind(path)
    if not found:
        raise CheckpointError(f"{path.name} is a folder and no checkpoint", where=str(path), fix="another one beside it")
    with reading(path):
        return _fsdp(path, weights) if found == "fsdp" else _deepspeed(path, weights)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the engines raise over a folder into our words.

    Raises:
        CheckpointError: it is damaged.
        UnsafeError: it would have run something.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (CheckpointError, UnsafeError, ConfigError):
        raise
    except (Exception, CheckpointException) as error:  # torch's own is no Exception; else the damage decides what comes
        failures = list(error.failures.values()) if isinstance(error, CheckpointException) else []
        cause = failures[0][0] if failures else error
        text = str(cause).strip()
        if match := re.search(r"unsupported (?:global|class|operand)[^\n]*", text, re.IGNORECASE):
            raise UnsafeError(
                f"{path.name} is refused: it holds more than tensors and plain values",
                where=f"{path}: {match[0][:160]}",
                safe="nothing in it was run",
                fix="a checkpoint that you trust",
            ) from error
        reason = text.splitlines()[0][:160] if text else type(cause).__name__
        raise CheckpointError(
            f"{path.name} can not be read: {reason}", where=str(path), fix="another checkpoint beside it"
        ) from error


def damage(path: Path) -> str:
    """What is missing in a folder of shares, in words; "" where every share is as long as it has to be."""
    if kind(path) == "fsdp":
        try:
            stored = fsdp_reader(path).read_metadata().storage_data.values()
        except (UnsafeError, ImportError):
            raise
        except Exception as error:  # a damaged pickle can raise almost anything
            return f".metadata: {type(error).__name__}"
        ends: dict[str, int] = {}
        for part in stored:
            ends[part.relative_path] = max(ends.get(part.relative_path, 0), part.offset + part.length)
        short = (name for name, end in sorted(ends.items()) if not _reaches(path / name, end))
        return next((f"{name} is missing or cut short" for name in short), "")
    if kind(path) == "deepspeed":
        return "" if 0 < _ranks(path) == world_size(path) else "the share of a rank is missing"
    return "it is a folder and no checkpoint"


def _reaches(file: Path, end: int) -> bool:
    return file.is_file() and file.stat().st_size >= end


# --- FSDP2: torch.distributed.checkpoint


def fsdp_reader(path: Path) -> "FileSystemReader":
    """Reads such a folder; its index is refused where it would run something."""
    from torch.distributed.checkpoint import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **options: Any) -> Any:
            metadata = _Index((path / ".metadata").read_bytes(), path).load()
            if metadata.storage_meta is None:
                from torch.distributed.checkpoint.metadata import StorageMeta

                metadata.storage_meta = StorageMeta()
            metadata.storage_meta.load_id = self.load_id
            return metadata

    return Reader(path)


def safe_planner() -> Any:
    """Loads what is no tensor (an optimizer's numbers) as plain values, where torch's own would run it."""
    import torch
    from torch.distributed.checkpoint import DefaultLoadPlanner
    from torch.distributed.checkpoint._nested_dict import set_element

    class Planner(DefaultLoadPlanner):
        def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
            name = read_item.dest_index.fqn
            loaded = torch.load(value, weights_only=True)
            if self.flatten_state_dict:
                set_element(self.original_state_dict, self.mappings[name], loaded)
            else:
                self.state_dict[name] = loaded

    return Planner()


def _fsdp(path: Path, weights: bool) -> dict[str, Any]:
    import torch
    from torch.distributed.checkpoint import load

    reader = fsdp_reader(path)
    entries = reader.read_metadata().state_dict_metadata
    whole: dict[str, Tensor] = {
        name.removeprefix("state_dict."): torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if weights and name.startswith("state_dict.") and hasattr(entry, "size")
    }
    if weights:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single process.*")
            load({"state_dict": whole}, storage_reader=reader, planner=safe_planner(), no_dist=True)
    return {**torch.load(path / "meta.pt", map_location="cpu", weights_only=True), "state_dict": whole}


class _Index(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if name in INDEX.get(module, ()) or (module == "torch" and DTYPES.fullmatch(name)):
            return super().find_class(module, name)
        raise UnsafeError(
            f"{self.path.name} is refused: its index asks to run {module}.{name}",
            where=str(self.path / ".metadata"),
            safe="nothing in it was run",
            fix="a checkpoint that you trust",
        )


# --- DeepSpeed


def trust_deepspeed() -> None:
    """Lets torch's reader of plain values build the four small classes that DeepSpeed's files contain.

    Raises:
        ConfigError: DeepSpeed is not installed.
    """
    import importlib

    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it says on the screen that it found no other
    try:
        torch.serialization.add_safe_globals([getattr(importlib.import_module(module), name) for module, name in DEEPSPEED])
    except ModuleNotFoundError as error:
        raise ConfigError(
            "DeepSpeed is not installed, and the checkpoint is DeepSpeed's",
            where=str(error),
            fix='pip install "dlzoo[deepspeed]", or dlzoo consolidate RUN where it is',
        ) from error


def world_size(path: Path) -> int:
    """How many processes wrote a folder of DeepSpeed's: each has a share of the optimizer."""
    return len(list(path.glob("*/*optim_states.pt")))


def _ranks(path: Path) -> int:
    """How many processes there were, as one of them noted."""
    import torch

    trust_deepspeed()
    file = next(iter(sorted(path.glob("*/*model_states.pt"))))
    return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["dp_world_size"])


def _deepspeed(path: Path, weights: bool) -> dict[str, Any]:
    import torch

    trust_deepspeed()
    files = sorted(path.glob("*/*_states.pt"))
    first = None
    for file in files:  # DeepSpeed loads them as pickles later on: each one has to be harmless
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if first is None and file.name.endswith("model_states.pt"):
            first = content
    own = {
        "module",
        "buffer_names",
        "optimizer",
        "param_shapes",
        "frozen_param_shapes",
        "shared_params",
        "frozen_param_fragments",
    }
    rest = {key: value for key, value in first.items() if key not in own}
    if not weights:
        return {**rest, "state_dict": {}}
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    # it prints its progress
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        whole = get_fp32_state_dict_from_zero_checkpoint(str(path), tag=files[0].parent.name)
    return {**rest, "state_dict": {key: value.clone() for key, value in whole.items()}}
