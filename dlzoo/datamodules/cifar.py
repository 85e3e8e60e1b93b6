"""CIFAR-10 and CIFAR-100: 60,000 colour photographs of 32x32 pixels."""

from pathlib import Path

from dlzoo.data.cifar import CIFAR10, CIFAR10_CLASSES, CIFAR100, CIFAR100_CLASSES, read_cifar
from dlzoo.data.splits import Splits
from dlzoo.datamodules.in_memory_images import InMemoryImages

__all__ = ["CIFAR100_SUPERCLASSES", "Cifar10", "Cifar100"]

CIFAR100_SUPERCLASSES = tuple(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
    """.split()  # noqa: SIM905 (quotes would hide the names)
)


class Cifar10(InMemoryImages):
    """CIFAR-10: 50,000 train (5,000 of them validate), 10,000 test, in ten classes.

    Found in data_dir/cifar10: cifar-10-batches-py/, cifar-10-python.tar.gz, train/ and test/ with class folders of pictures, or
    train.tar and test.tar with those in them; otherwise the archive is downloaded. Pictures that are JPEGs are not the
    published pixels: `edition` says so, and accuracies are not comparable. Both are normalised by the constants
    of the published pixels.

    Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html; augmentation as in He, Zhang, Ren, Sun 2015,
    https://arxiv.org/abs/1512.03385, section 4.2, whose 45k/5k cut into training and validation is also the default here.

    Args:
        data_dir: where the data sets lie.
        batch_size: images a training batch, over all devices together.
        eval_batch_size: images a validation or test batch.
        val_size: training images that validate.
        crop_padding: border round a training image from which a crop is taken.
        flip: mirror half of the training images.
        cutout: side of the square that is cut out of a training image.
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: must be 10.
        in_channels: must be 3.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: the side of training images in the first epoch, as a share of the full one; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, 3, 32, 32), float32, normalised; y (B,), int64.
    """

    classes = CIFAR10_CLASSES
    shape = (3, 32, 32)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the 50,000 published training images, over all pixels
    published = (50_000, 10_000)

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_size: int = 5_000,
        crop_padding: int = 4,
        flip: bool = True,
        cutout: int = 0,
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 10,
        in_channels: int = 3,
        randaugment: int = 0,
        grow_from: float = 1.0,
        grow_epochs: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            crop_padding=crop_padding,
            flip=flip,
            cutout=cutout,
            seed=seed,
            channels_last=channels_last,
            num_classes=num_classes,
            in_channels=in_channels,
            randaugment=randaugment,
            grow_from=grow_from,
            grow_epochs=grow_epochs,
        )
        self.data_dir = Path(data_dir)

    def read(self) -> Splits:
        return read_cifar(self.data_dir, CIFAR10)


class Cifar100(InMemoryImages):
    """CIFAR-100: 50,000 train (5,000 of them validate), 10,000 test, in a hundred classes that form twenty superclasses.

    Found in data_dir/cifar100: cifar-100-python/ or cifar-100-python.tar.gz; otherwise the archive is downloaded.
    `superclasses` are the names of the twenty, and `superclass_of`, known after setup, is the superclass of each class.

    Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        data_dir: where the data sets lie.
        batch_size: images a training batch, over all devices together.
        eval_batch_size: images a validation or test batch.
        val_size: training images that validate.
        crop_padding: border round a training image from which a crop is taken.
        flip: mirror half of the training images.
        cutout: side of the square that is cut out of a training image.
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: must be 100.
        in_channels: must be 3.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: the side of training images in the first epoch, as a share of the full one; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, 3, 32, 32), float32, normalised; y (B,), int64, the fine label.
    """

    classes = CIFAR100_CLASSES
    superclasses = CIFAR100_SUPERCLASSES
    superclass_of: tuple[int, ...] = ()
    shape = (3, 32, 32)
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # of the 50,000 published training images, over all pixels
    published = (50_000, 10_000)

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_size: int = 5_000,
        crop_padding: int = 4,
        flip: bool = True,
        cutout: int = 0,
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 100,
        in_channels: int = 3,
        randaugment: int = 0,
        grow_from: float = 1.0,
        grow_epochs: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            crop_padding=crop_padding,
            flip=flip,
            cutout=cutout,
            seed=seed,
            channels_last=channels_last,
            num_classes=num_classes,
            in_channels=in_channels,
            randaugment=randaugment,
            grow_from=grow_from,
            grow_epochs=grow_epochs,
        )
        self.data_dir = Path(data_dir)

    def read(self) -> Splits:
        splits = read_cifar(self.data_dir, CIFAR100)
        if splits.groups is not None:
            self.superclass_of = tuple(splits.groups.tolist())
        return splits
