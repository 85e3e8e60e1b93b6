"""Pictures with a mask of labels, from class-less folders or the archive that holds them, as bytes in memory.

Such a set is two folders for each split: photos, and masks of the same file names (the ending aside), one byte a pixel.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor

from dlzoo.data.archive import members
from dlzoo.data.preprocess import read_image, to_tensor
from dlzoo.errors import DataError

__all__ = ["Masked", "read_masked"]


class Masked(NamedTuple):
    """Images (N, C, H, W) and their masks (N, H, W), uint8 both, in the order of their names."""

    images: Tensor
    masks: Tensor


def read_masked(
    place: Path, folders: Mapping[str, tuple[str, str]], channels: int, sha256: str, source: str
) -> dict[str, Masked]:
    """Every split, from the folders in `place`, or from place/<name>.tar.

    Args:
        place: the data set's folder; its name is the archive's.
        folders: split -> the folder of its images and the folder of its masks.
        channels: of the images.
        sha256: of the archive.
        source: where the data set comes from, for who has to get it.

    Raises:
        DataError: nothing is there, the archive has another hash, a picture is damaged, or an image has no mask.
    """
    archive = place / f"{place.name}.tar"
    if all((place / folder).is_dir() for pair in folders.values() for folder in pair):
        files = _unpacked(place, {folder for pair in folders.values() for folder in pair})
    elif archive.is_file():
        _check(archive, sha256)
        files = members(archive)
    else:
        raise DataError(
            f"{place.name} is not there, and there is no address that it could be downloaded from.",
            where=f"{archive}, or the folders {', '.join(sorted({f for pair in folders.values() for f in pair}))} beside it",
            fix=f"make them from {source}, or data_dir=FOLDER that has {place.name}/{archive.name}",
        )
    found: dict[str, dict[str, Tensor]] = {folder: {} for pair in folders.values() for folder in pair}
    masks = {pair[1] for pair in folders.values()}
    for name, content in files:
        path = PurePosixPath(name)
        if (folder := path.parent.name) in found:
            found[folder][path.stem] = _decoded(name, content, 1 if folder in masks else channels)
    return {split: _stacked(split, found[images], found[labels]) for split, (images, labels) in folders.items()}


def _unpacked(place: Path, folders: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    for folder in sorted(folders):
        for entry in sorted(os.scandir(place / folder), key=lambda entry: entry.name):
            if entry.is_file() and not entry.name.startswith("."):
                yield f"{folder}/{entry.name}", Path(entry).read_bytes()


def _check(archive: Path, sha256: str) -> None:
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{archive.name} is not the file that was measured with.",
            where=f"{archive}: sha256 {found}, expected {sha256}",
            fix=f"get it again, or unpack it into {archive.parent} yourself to use it as it is",
        )


def _decoded(name: str, content: bytes, channels: int) -> Tensor:
    """(C, H, W), uint8."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return to_tensor(read_image(picture, channels))
    except (OSError, SyntaxError, ValueError, DataError) as error:
        what = f"{name} is not a readable picture ({getattr(error, 'what', error)})."
        raise DataError(what, where=name, fix="get the data set again") from error


def _stacked(split: str, images: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Masked:
    names = sorted(images, key=lambda name: (len(name), name) if name.isdigit() else (0, name))  # 2 comes before 10
    if not names or set(names) != set(masks):
        lone = sorted(set(names) ^ set(masks))
        what = f"{lone[0]} has no counterpart" if lone else "there are none"
        raise DataError(f"the {split} split needs a mask for each image: {what}.", where=split, fix="get the data set again")
    shapes = {tuple(images[name].shape[1:]) for name in names} | {tuple(masks[name].shape[1:]) for name in names}
    if len(shapes) > 1:
        raise DataError(f"the images and masks of the {split} split differ in size: {sorted(shapes)[:3]}.", where=split)
    return Masked(torch.stack([images[name] for name in names]), torch.stack([masks[name][0] for name in names]))
