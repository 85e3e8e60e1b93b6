"""Your own pictures: which split is which, and that Lightning trains on them."""

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dlzoo.datamodules.image_folder import ImageFolder
from dlzoo.errors import DataError


def _make(root, *splits, per_class=10):
    random = np.random.default_rng(0)
    for split in splits:
        for name in ("ant", "bee", "cat"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def _data(root, **options):
    return ImageFolder(root, **({"image_size": 16, "batch_size": 4, "eval_batch_size": 5, "num_workers": 0} | options))


def _folders(data):
    """The folders that the pictures of each split come from, without the class's own, and how many there are."""
    return {
        split: (sorted({path.relative_to(data.root).parent.parent.as_posix() for path, _ in samples}), len(samples))
        for split, samples in data.splits.items()
    }


@pytest.mark.parametrize(
    ("splits", "want"),
    [
        (["train", "val", "test"], {"train": (["train"], 30), "val": (["val"], 30), "test": (["test"], 30)}),
        (["train", "val"], {"train": (["train"], 24), "val": (["train"], 6), "test": (["val"], 30)}),
        (["train", "test"], {"train": (["train"], 24), "val": (["train"], 6), "test": (["test"], 30)}),
        (["train"], {"train": (["train"], 22), "val": (["train"], 5), "test": (["train"], 3)}),
        ([""], {"train": (["."], 22), "val": (["."], 5), "test": (["."], 3)}),
    ],
)
def test_the_folders_say_which_pictures_test(tmp_path, splits, want):
    _make(tmp_path, *splits)
    data = _data(tmp_path, val_fraction=0.2)
    assert _folders(data) == want
    assert data.train_size == want["train"][1]
    paths = [path for samples in data.splits.values() for path, _ in samples]
    assert len(set(paths)) == len(paths)  # nothing in two splits
    assert data.splits == _data(tmp_path, val_fraction=0.2, seed=7).splits


def test_nothing_is_cut_off_where_the_share_is_nothing(tmp_path):
    _make(tmp_path, "train")
    data = _data(tmp_path, val_fraction=0, test_fraction=0)
    assert data.train_size == 30
    assert data.val_dataloader() == data.test_dataloader() == []


def test_classes_and_preprocessing(tmp_path):
    _make(tmp_path, "train")
    data = _data(tmp_path, num_classes=3, image_size=224)
    assert data.classes == ("ant", "bee", "cat")
    assert data.num_classes == 3
    assert data.edition == ""
    assert (data.preprocess.resize, data.preprocess.height, data.preprocess.width) == (256, 224, 224)


def test_test_images_come_from_all_classes(tmp_path):
    _make(tmp_path, "train", "test")
    data = _data(tmp_path)
    x, y = data.test_images(6)
    assert x.shape == (6, 3, 16, 16)
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    path = data.splits["test"][0][0]
    assert torch.equal(x[0], data.preprocess(path))
    assert len(data.test_images(1_000)[1]) == 30


def test_grey_pictures_for_a_network_with_one_channel(tmp_path):
    _make(tmp_path, "train")
    x, _ = next(iter(_data(tmp_path, in_channels=1).train_dataloader()))
    assert x.shape == (4, 1, 16, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 2}, "has 3 class folders, and num_classes is 2"),
        ({"val_fraction": 1.0}, "must be in"),
        ({"test_fraction": -0.1}, "must be in"),
        ({"min_scale": 0.0}, "must be in"),
        ({"image_size": 0}, "image_size must be above 0"),
        ({"num_workers": -1}, "num_workers not below 0"),
        ({"in_channels": 2}, "channels must be 1 or 3"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, words):
    _make(tmp_path, "train", per_class=1)
    with pytest.raises(ValueError, match=words):
        _data(tmp_path, **options)


def test_folders_without_pictures_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        _data(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        _data(tmp_path / "empty")
    _make(tmp_path / "set", "train", per_class=1)
    (tmp_path / "set" / "train" / "dog").mkdir()
    with pytest.raises(DataError, match="class 'dog' has no pictures"):
        _data(tmp_path / "set").prepare_data()


def test_too_few_pictures_to_cut_are_a_data_error(tmp_path):
    (tmp_path / "ant").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "ant" / "1.png")
    with pytest.raises(DataError, match="too few"):
        _data(tmp_path).prepare_data()


class Linear(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(768, 3)
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append(x.sum().item())
        return nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_trains_without_a_warning_and_workers_change_nothing(tmp_path):
    _make(tmp_path, "train")
    weights = []
    for num_workers in (0, 2):
        L.seed_everything(0, verbose=False)
        task, data = Linear(), _data(tmp_path, num_workers=num_workers)
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(task, datamodule=data)
        weights.append(torch.cat([parameter.flatten() for parameter in task.parameters()]))
        assert len(task.seen) == 2 * (24 // 4)
    assert torch.equal(*weights)


def test_a_corrupt_picture_stops_the_run_and_is_named(tmp_path):
    _make(tmp_path, "train")
    (tmp_path / "train" / "bee" / "3.png").write_bytes(b"no picture")
    data = _data(tmp_path, num_workers=1, val_fraction=0, test_fraction=0)
    with pytest.raises(DataError, match=r"bee/3\.png is not a readable picture"):
        list(data.train_dataloader())


@pytest.mark.slow
def test_hymenoptera(data_dir, tmp_path):
    """A real set with train/ and val/: the published val is what tests."""
    from dlzoo.data.archive import extract

    extract(data_dir / "hymenoptera" / "hymenoptera_data.tar", tmp_path / "set")
    root = next(path.parent for path in (tmp_path / "set").rglob("train"))
    data = ImageFolder(root, num_workers=0, batch_size=8, val_fraction=0.1)
    assert data.classes == ("ants", "bees")
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 220, "val": 24, "test": 153}
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (8, 3, 224, 224)
    assert set(y.tolist()) == {0, 1}
