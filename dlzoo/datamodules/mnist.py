"""MNIST and Fashion-MNIST: 70,000 grey pictures of 28x28 pixels."""

from pathlib import Path
from typing import ClassVar

from dlzoo.data.download import fetch
from dlzoo.data.idx import read_idx
from dlzoo.data.splits import Splits
from dlzoo.datamodules.in_memory_images import InMemoryImages

__all__ = ["FashionMnist", "Mnist"]

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class _IdxImages(InMemoryImages):
    """What MNIST and Fashion-MNIST share: four idx files."""

    shape = (1, 28, 28)
    published = (60_000, 10_000)
    folders: ClassVar[tuple[str, ...]]  # under data_dir: ours, then where torchvision puts it
    mirrors: ClassVar[tuple[str, ...]]
    sha256: ClassVar[tuple[str, ...]]  # of the .gz files, in the order of FILES
    data_dir: Path

    def read(self) -> Splits:
        train_images, train_labels, test_images, test_labels = (
            read_idx(self._file(name, sha256), dimensions=3 if "images" in name else 1)
            for name, sha256 in zip(FILES, self.sha256, strict=True)
        )
        return Splits(train_images[:, None], train_labels.long(), test_images[:, None], test_labels.long())

    def _file(self, name: str, sha256: str) -> Path:
        """Where a file lies, packed or not; where it lies nowhere it is downloaded, and its hash is checked."""
        for folder in self.folders:
            for path in (self.data_dir / folder / f"{name}.gz", self.data_dir / folder / name):
                if path.is_file():
                    return path
        urls = [f"{mirror}/{name}.gz" for mirror in self.mirrors]
        return fetch(urls, self.data_dir / self.folders[0] / f"{name}.gz", sha256=sha256)


class Mnist(_IdxImages):
    """MNIST: 60,000 handwritten digits to train on (5,000 of them validate), 10,000 to test.

    Found in data_dir/mnist, or where torchvision puts it (data_dir/MNIST/raw), packed or not; otherwise downloaded.

    Source: LeCun, Bottou, Bengio, Haffner 1998, https://doi.org/10.1109/5.726791.

    Args:
        data_dir: where the data sets lie.
        batch_size: images a training batch, over all devices together.
        eval_batch_size: images a validation or test batch.
        val_size: training images that validate.
        crop_padding: border round a training image from which a crop is taken.
        flip: mirror half of the training images; a mirrored digit is none, hence off.
        cutout: side of the square that is cut out of a training image.
        seed: of order and augmentation.
        channels_last: batches in this memory format.
        num_classes: must be 10.
        in_channels: must be 1.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: the side of training images in the first epoch, as a share of the full one; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, 1, 28, 28), float32, normalised; y (B,), int64.
    """

    classes = tuple("0123456789")
    mean, std = (0.1307,), (0.3081,)  # of the 60,000 training images
    folders = ("mnist", "MNIST/raw")
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
    sha256 = (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    )

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_size: int = 5_000,
        crop_padding: int = 2,
        flip: bool = False,
        cutout: int = 0,
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 10,
        in_channels: int = 1,
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


class FashionMnist(_IdxImages):
    """Fashion-MNIST: 60,000 pictures of clothes to train on (5,000 of them validate), 10,000 to test.

    Found in data_dir/fashion_mnist, or where torchvision puts it (data_dir/FashionMNIST/raw), packed or not; otherwise
    downloaded from its repository, or from the copy that Keras uses (the hash decides).

    Source: Xiao, Rasul, Vollgraf 2017, https://arxiv.org/abs/1708.07747.

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
        in_channels: must be 1.
        randaugment: magnitude of RandAugment in training, up to 30; 0 is off.
        grow_from: the side of training images in the first epoch, as a share of the full one; 1 is off.
        grow_epochs: epochs before the first one of full size.

    Batch:
        x (B, 1, 28, 28), float32, normalised; y (B,), int64.
    """

    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    mean, std = (0.2860,), (0.3530,)  # of the 60,000 training images
    folders = ("fashion_mnist", "FashionMNIST/raw")
    mirrors = (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    )
    sha256 = (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    )

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_size: int = 5_000,
        crop_padding: int = 2,
        flip: bool = True,
        cutout: int = 0,
        seed: int = 0,
        channels_last: bool = False,
        num_classes: int = 10,
        in_channels: int = 1,
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
