"""The speed of the image pipeline: G9 of bench.py."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from bench_timing import Row, faster, take_turns

IMAGES, BATCH = 10_000, 128


def goal_9(repeats: int) -> Iterator[Row]:
    """Crop, flip and normalise CIFAR-10 in batches of 128: ours beside torchvision's transforms and airbench's functions."""
    import torch
    from bench_training import resnet_step

    torch.set_num_threads(1)
    images, labels = _cifar()
    ours, ours_last = (_ours(images, labels, channels_last) for channels_last in (False, True))
    v2, v1 = _torchvision(images, labels, "v2"), _torchvision(images, labels, "v1")
    seconds = take_turns(
        {
            "ours": lambda: _drain(ours),
            "ours_last": lambda: _drain(ours_last),
            "v2": lambda: _drain(v2, IMAGES // 5),  # a fifth of the images is enough for what takes a second or two
            "v1": lambda: _drain(v1, IMAGES // 5),
            "airbench": lambda: _drain(_airbench(images, labels)),
        },
        repeats,
    )
    count = IMAGES // BATCH * BATCH
    rates = {name: (count if name not in ("v1", "v2") else _whole(IMAGES // 5)) / value for name, value in seconds.items()}
    for peer, what, bound in (
        ("v2", "crop, flip, normalise, beside torchvision CIFAR10 with v2 transforms, no workers", ">= 12"),
        ("v1", "the same with torchvision's first transforms", ">= 8"),
        ("airbench", "the same with whole-set crop and flip as cifar10-airbench has them", ">= 2.5"),
    ):
        yield faster("G9", what, rates["ours"], rates[peer], "images/s", bound)
    step = take_turns({"ours": resnet_step("bf16")}, repeats)["ours"]
    batch = seconds["ours_last"] / (IMAGES // BATCH)
    yield Row(
        "G9", "a channels-last batch, as a share of a bf16 step of ResNet-20", batch, step, "s CPU", batch / step, "<= 0.03"
    )


def _cifar() -> tuple[Any, Any]:
    """The first training images as bytes, and their labels."""
    from dlzoo.datamodules.cifar import Cifar10

    splits = Cifar10(os.environ.get("DLZOO_DATA", "data")).splits
    return splits.train_images[:IMAGES].clone(), splits.train_labels[:IMAGES].clone()


def _drain(batches: Iterable[Any], images: int = IMAGES) -> float:
    """Takes that many images, whole batches; processor seconds, the set-up of an epoch included."""
    left = _whole(images)
    started = time.process_time()
    for x, _ in batches:
        left -= len(x)
        if left <= 0:
            break
    return time.process_time() - started


def _whole(images: int) -> int:
    """The images of the batches that `_drain` takes."""
    return -(-images // BATCH) * BATCH if images < IMAGES else IMAGES // BATCH * BATCH


def _ours(images: Any, labels: Any, channels_last: bool) -> Iterable[Any]:
    from dlzoo.data.augment import BatchAugment
    from dlzoo.data.batches import ImageBatches
    from dlzoo.datamodules.cifar import Cifar10

    augment = BatchAugment(Cifar10.mean, Cifar10.std, crop_padding=4, flip=True)
    options = {"batch_size": BATCH, "augment": augment, "shuffle": True, "drop_last": True, "channels_last": channels_last}
    return ImageBatches(images, labels, seed=0, device="cpu", **options)


def _torchvision(images: Any, labels: Any, version: str) -> Iterable[Any]:
    """A DataLoader over torchvision's data set, given these images: its own reader wants the published archive."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import CIFAR10
    from torchvision.transforms import v2

    from dlzoo.datamodules.cifar import Cifar10

    if version == "v2":
        whole = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(Cifar10.mean, Cifar10.std)])
        steps = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), whole])
    else:
        steps = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(Cifar10.mean, Cifar10.std),
            ]
        )
    dataset = CIFAR10.__new__(CIFAR10)
    dataset.data, dataset.targets = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
    dataset.transform, dataset.target_transform = steps, None
    return DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=0)


def _airbench(images: Any, labels: Any) -> Iterator[Any]:
    """An epoch as cifar10-airbench makes it: floats with a border, a mask for each shift, rows before columns; then flips.

    Source: Jordan 2024, https://arxiv.org/abs/2404.00498, and the loader in github.com/KellerJordan/cifar10-airbench; written
    anew. Normalising and padding, which it does once for a whole training, are not timed.
    """
    import torch

    padded, border = _prepared(images), 4
    count, side = len(images), images.shape[-1]
    started = torch.randint(-border, border + 1, (count, 2))
    rows = torch.empty(count, 3, side, side + 2 * border)
    crops = torch.empty(count, 3, side, side)
    for shift in range(-border, border + 1):
        which = started[:, 0] == shift
        rows[which] = padded[which][:, :, border + shift : border + shift + side, :]
    for shift in range(-border, border + 1):
        which = started[:, 1] == shift
        crops[which] = rows[which][:, :, :, border + shift : border + shift + side]
    flip = (torch.rand(count) < 0.5).view(-1, 1, 1, 1)
    crops = torch.where(flip, crops.flip(-1), crops)
    order = torch.randperm(count)
    for batch in range(count // BATCH):
        index = order[batch * BATCH : (batch + 1) * BATCH]
        yield crops[index], labels[index]


_kept: dict[int, Any] = {}


def _prepared(images: Any) -> Any:
    """The images normalised and with a mirrored border, made once."""
    import torch
    import torch.nn.functional as F

    from dlzoo.datamodules.cifar import Cifar10

    if id(images) not in _kept:
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (Cifar10.mean, Cifar10.std))
        _kept[id(images)] = F.pad((images / 255 - mean) / std, (4,) * 4, mode="reflect")
    return _kept[id(images)]
