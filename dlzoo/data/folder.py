"""Finds the pictures in a folder of class folders, and which of them train, validate and test.

No torch here: a config counts the classes before torch is imported.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from dlzoo.errors import DataError

__all__ = ["EXTENSIONS", "class_folders", "class_names", "pictures"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

Sample = tuple[Path, int]


def class_names(root: Path) -> tuple[str, ...]:
    """The classes of a data set: the folders in root/train, or in root itself where there is no train/.

    Raises:
        DataError: root is missing or has no class folders.
    """
    return class_folders(root / "train" if (root / "train").is_dir() else root)


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders in `root`, in order: the classes. Hidden ones do not count.

    Raises:
        DataError: root is missing or has no folders.
    """
    if not root.is_dir():
        fix = f"make one folder for each class: {root}/<class>/*.jpg"
        raise DataError(f"there is no folder {root}.", where=str(root), fix=fix)
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")))
    if not classes:
        fix = f"put the pictures of each class into a folder of its own: {root}/<class>/*.jpg"
        raise DataError(f"{root} has no class folders.", where=str(root), fix=fix)
    return classes


def pictures(root: Path, classes: Sequence[str]) -> list[Sample]:
    """Paths and labels of all pictures in the class folders, sorted by class and path; folders in them are searched too.

    Raises:
        DataError: a class has no pictures, or root has a class that is not among them.
    """
    strange = set(class_folders(root)) - set(classes)
    if strange:
        fix = f"every split needs the same class folders; remove {', '.join(sorted(strange))} or add it to the others"
        raise DataError(f"{root} has a class that the training pictures have not.", where=str(root / min(strange)), fix=fix)
    samples: list[Sample] = []
    for label, name in enumerate(classes):
        found = sorted(
            Path(folder) / file
            for folder, _, files in os.walk(root / name, followlinks=True)
            for file in files
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )
        if not found:
            fix = f"put pictures ({' '.join(EXTENSIONS)}) into it, or remove the folder"
            raise DataError(f"the class {name!r} has no pictures.", where=str(root / name), fix=fix)
        samples += [(path, label) for path in found]
    return samples
