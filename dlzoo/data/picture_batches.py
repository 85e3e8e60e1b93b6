"""Batches of picture files, read by worker processes and normalised on the device that trains.

What happens to a sample is a pure function of (seed, epoch, index): the sampler hands the epoch and the index to the data set,
which seeds the sample's own random numbers from them. Neither the number of workers nor of ranks changes what is learned.

Source: the random crop is that of Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6: 8 to 100 % of the area,
sides in proportion 3:4 to 4:3.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from dlzoo import faults
from dlzoo.data.augment import BatchAugment
from dlzoo.data.folder import Sample
from dlzoo.data.growth import Growth
from dlzoo.data.order import EpochOrder, OrderedBatches
from dlzoo.data.preprocess import Preprocess, read_image, to_tensor
from dlzoo.data.randaugment import RandAugment
from dlzoo.data.streams import generator
from dlzoo.errors import DataError, DlzooError
from dlzoo.signals import ignore_in_worker

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FolderBatches", "PictureFiles", "random_box"]


class PictureFiles(Dataset):
    """Pictures as byte tensors of one size; asked for by (epoch, index).

    Args:
        samples: paths and labels.
        preprocess: channels, size, and how evaluation crops.
        train: crop and flip at random; otherwise resize and cut out the centre.
        seed: the run's seed.
        flip: mirror half of the training pictures.
        min_scale: the least share of the area that a random crop takes.
        randaugment: magnitude of RandAugment, up to 30; 0 is off.
        growth: the size of training pictures over the epochs; None gives the full size throughout.

    Shape:
        ((3, H, W), uint8; label), or the error that a picture gave: an exception raised in a worker process would arrive as
        another one, with a traceback for a message.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        *,
        train: bool = False,
        seed: int = 0,
        flip: bool = True,
        min_scale: float = 0.08,
        randaugment: int = 0,
        growth: Growth | None = None,
    ) -> None:
        self.samples, self.preprocess, self.train = samples, preprocess, train
        self.seed, self.flip, self.min_scale = seed, flip, min_scale
        self.randaugment, self.growth = RandAugment(randaugment), growth or Growth()
        self.reading: Tensor | None = None  # (workers,) the sample that each is at, in memory that they share

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | DlzooError:
        epoch, index = key
        path, label = self.samples[index]
        worker = get_worker_info()
        if worker is not None and self.reading is not None:
            self.reading[worker.id] = index
        if (fault := faults.due("sample", index)) is not None:
            faults.strike(fault)
        try:
            image = read_image(path, self.preprocess.channels)
            return self._varied(image, epoch, index) if self.train else self.preprocess.fit(image), label
        except DlzooError as error:
            error.where = f"{error.where or path} (sample index {index})"
            return error

    def _varied(self, image: Image.Image, epoch: int, index: int) -> Tensor:
        from PIL import Image

        random = generator("augment", self.seed, epoch, index)
        box = random_box(*image.size, random, self.min_scale)
        mirrored = bool(torch.rand((), generator=random) < 0.5)
        # Cropped first and then resized: the filter must not see what lies outside.
        size = tuple(self.growth.side(side, epoch) for side in (self.preprocess.width, self.preprocess.height))
        x = to_tensor(image.crop(box).resize(size, Image.Resampling.BILINEAR))
        x = x.flip(-1) if mirrored and self.flip else x
        if not self.randaugment:
            return x
        drawn = self.randaugment.draw(1, generator("randaugment", self.seed, epoch, index))
        return self.randaugment.apply(x[None], drawn)[0]


def random_box(width: int, height: int, random: torch.Generator, min_scale: float) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a random part of a picture; ten tries, then the centre."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        scale, proportion, x, y = torch.rand(4, generator=random).tolist()
        area = width * height * (min_scale + (1 - min_scale) * scale)
        ratio = math.exp(low + (high - low) * proportion)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


class FolderBatches(OrderedBatches):
    """Iterates over (x, y) batches of picture files, read by worker processes and normalised on the device.

    It is no DataLoader, but holds one: Lightning would give a DataLoader another sampler on several devices.

    Args:
        files: the pictures.
        order: which picture comes when. Lightning calls its `set_epoch`.
        device: where batches go.
        num_workers: processes that read; 0 reads in this one.
        channels_last: batches in this memory format.

    Shape:
        yields x (B, C, H, W), float32 and y (B,), int64.
    """

    def __init__(
        self,
        files: PictureFiles,
        order: EpochOrder,
        *,
        device: torch.device | str = "cpu",
        num_workers: int = 0,
        channels_last: bool = False,
    ) -> None:
        self.sampler, self.batch_size, self.device = order, order.batch_size, torch.device(device)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._plain = BatchAugment(files.preprocess.mean, files.preprocess.std)
        self._keys = _BatchKeys(order)
        self._files = files
        if num_workers:
            files.reading = torch.full((num_workers,), -1).share_memory_()
        self._loader = DataLoader(
            files,
            batch_sampler=self._keys,
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            persistent_workers=num_workers > 0,
            worker_init_fn=_begin_reading,
            generator=generator("workers"),  # else each pass would draw from the generator that dropout uses
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._keys.first = batch = self.sampler.start()
        for item in self._read():
            if isinstance(item, DlzooError):
                raise item
            x, y = (tensor.to(self.device, non_blocking=True) for tensor in item)
            self.sampler.gave(batch)
            batch += 1
            yield self._plain.normalize(x.contiguous(memory_format=self.memory_format)), y

    def fault(self, error: BaseException) -> DataError | None:
        """What an error says of the processes that read, with the pictures that those were at; None where it says nothing.

        Args:
            error: torch raises it in the main thread, wherever that is, as soon as a process has died.
        """
        if "DataLoader worker" not in str(error):
            return None
        pids = {int(pid) for pid in re.findall(r"\d+", str(error))}
        running = getattr(self._loader, "_iterator", None)
        workers = [worker for worker, process in enumerate(running._workers if running else ()) if process.pid in pids]
        at = [index for worker in workers if (index := int(self._files.reading[worker])) >= 0]
        samples = [f"{self._files.samples[index][0]} (sample index {index})" for index in at]
        return DataError(
            "a process that reads pictures died" + (f", at {', '.join(samples)}" if samples else ""),
            where=str(error).splitlines()[0],
            fix="data.num_workers=0, or give the machine more memory (in a container: a larger /dev/shm)",
        )

    def _read(self) -> Iterator[tuple[Tensor, Tensor] | DlzooError]:
        try:
            yield from self._loader
        except RuntimeError as error:
            raise self.fault(error) or error from error


def _begin_reading(worker: int) -> None:
    """A process that reads is deaf to what the whole process group is told: the run saves first, and then ends it. And it says
    nothing of a run that went away while a batch was handed over: the run itself has said why."""
    ignore_in_worker(worker)
    said = sys.excepthook  # where multiprocessing's thread for the memory of batches tells of its errors
    sys.excepthook = lambda kind, *what: None if issubclass(kind, ConnectionError | EOFError) else said(kind, *what)


@atexit.register  # registered after multiprocessing's own, hence called before it: that one asks them by SIGTERM, and waits
def _end_readers() -> None:
    """Ends the processes that still read: they are deaf to SIGTERM, and Python would wait for them without an end."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class _BatchKeys:
    """What the DataLoader asks the data set for: (epoch, index) of each sample of this rank's share of each batch."""

    def __init__(self, order: EpochOrder) -> None:
        self.order, self.first = order, 0

    def __len__(self) -> int:
        return len(self.order) - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, index = self.order.epoch, self.order.permutation()
        for batch in range(self.first, len(self.order)):
            low, high = self.order.share(batch)
            yield [(epoch, sample) for sample in index[low:high].tolist()]


def _collate(items: list[tuple[Tensor, int] | DlzooError]) -> tuple[Tensor, Tensor] | DlzooError:
    for item in items:
        if isinstance(item, DlzooError):
            return item
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels)
