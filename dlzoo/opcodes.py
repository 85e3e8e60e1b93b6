"""What a pickle would call, read from its opcodes without running one, and what else a checkpoint can do to its reader."""

import io
import pickletools
import re
import zipfile
from pathlib import Path

__all__ = ["compressed", "would_run"]

# what torch.save names for tensors and plain values; whoever names more wants something run
_PLAIN = {
    "collections": re.compile(r"OrderedDict|defaultdict|Counter"),
    "torch": re.compile(r"\w+Storage|Size|device|Tensor|((float|bfloat|complex|u?int|q?u?int)\d+\w*|bool)"),
    "torch.storage": re.compile(r"UntypedStorage|TypedStorage"),
    "torch._utils": re.compile(r"_rebuild_\w+"),
    "torch._tensor": re.compile(r"_rebuild_from_type_v2"),
    "torch.nn.parameter": re.compile(r"Parameter|Buffer"),
    "torch.serialization": re.compile(r"_get_layout"),
    "_codecs": re.compile(r"encode"),
}
_MOST = 64 << 20  # bytes of a pickle that are looked at


def would_run(path: Path) -> str:
    """The first name in a checkpoint's pickle that is no tensor and no plain value, such as "posix.system"; "" for none.

    Meant for a file that torch has refused: whether it is damaged or would run something.
    """
    try:
        return next((name for pickle in _pickles(path) if (name := _strange(pickle))), "")
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return ""


def compressed(path: Path) -> bool:
    """Whether the parts of a checkpoint are packed: torch never does that, and a few bytes could unpack to gigabytes."""
    try:
        with zipfile.ZipFile(path) as parts:
            return any(
                part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size for part in parts.infolist()
            )
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return False


def _pickles(path: Path) -> list[bytes]:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return [file.read(_MOST)]
    with zipfile.ZipFile(path) as parts:
        names = [part for part in parts.infolist() if part.filename.endswith(".pkl") and part.file_size <= _MOST]
        return [parts.read(part) for part in names]


def _strange(content: bytes) -> str:
    stream, texts = io.BytesIO(content), ["", ""]
    try:
        while stream.tell() < len(content):  # the old format is several pickles, one behind the other
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    module, _, name = str(argument).partition(" ")
                elif opcode.name == "STACK_GLOBAL":
                    module, name = texts
                elif opcode.name.startswith("EXT"):
                    return f"extension {argument}"
                else:
                    if isinstance(argument, str):
                        texts = [texts[1], argument]
                    continue
                if module not in _PLAIN or not _PLAIN[module].fullmatch(name):
                    return f"{module}.{name}"
    except Exception:  # a damaged pickle can raise almost anything
        return ""
    return ""
