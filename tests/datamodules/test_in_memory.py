"""What all image sets in memory share, on a small one made here; and that Lightning takes the loaders as they are."""

import lightning as L
import pytest
import torch
from torch import nn

from dlzoo.data.splits import Splits
from dlzoo.datamodules.in_memory_images import InMemoryImages
from dlzoo.errors import ConfigError, DataError

TRAIN, TEST = 103, 31


def _splits(train=TRAIN, test=TEST, shape=(3, 8, 8), labels=4):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (train + test, *shape), dtype=torch.uint8, generator=random)
    images[:, 0, 0, 0] = torch.arange(train + test)  # tells which image it is
    y = torch.arange(train + test) % labels
    return Splits(images[:train], y[:train], images[train:], y[train:], edition="an edition of its own")


class Patches(InMemoryImages):
    """Noise in four classes."""

    classes = ("a", "b", "c", "d")
    shape = (3, 8, 8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    published = (TRAIN, TEST)
    reads = 0
    made = staticmethod(_splits)

    def __init__(self, **changes):
        options = {"batch_size": 16, "eval_batch_size": 10, "val_size": 20, "crop_padding": 0, "flip": False, "cutout": 0}
        options |= {"seed": 0, "channels_last": False, "num_classes": 4, "in_channels": 3}
        super().__init__(**(options | changes))

    def read(self):
        self.reads += 1
        return self.made()


def _which(loader):
    """Which images a loader gives, by what stands in their first pixel."""
    x = torch.cat([x for x, _ in loader])
    return ((x[:, 0, 0, 0] * 0.2 + 0.4) * 255).round().int().tolist()


def test_training_validation_and_test_are_disjoint_and_complete():
    data = Patches(batch_size=83)
    train, val, test = (_which(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()))
    assert len(train) == data.train_size == TRAIN - 20
    assert len(val) == 20
    assert sorted(train + val) == list(range(TRAIN))
    assert test == list(range(TRAIN, TRAIN + TEST))  # each once, in order


def test_the_cut_is_the_same_for_every_seed():
    assert _which(Patches(seed=1).val_dataloader()) == _which(Patches(seed=2).val_dataloader())


def test_the_order_of_training_follows_the_seed():
    orders = [_which(Patches(seed=seed).train_dataloader()) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_only_training_images_are_augmented():
    plain, varied = Patches(), Patches(crop_padding=2, flip=True, cutout=3)
    for name in ("val_dataloader", "test_dataloader"):
        for (x, y), (want_x, want_y) in zip(getattr(varied, name)(), getattr(plain, name)(), strict=True):
            assert torch.equal(x, want_x)
            assert torch.equal(y, want_y)
    x, want = (next(iter(data.train_dataloader()))[0] for data in (varied, plain))
    assert not torch.equal(x, want)


def test_test_images_are_what_the_test_loader_gives():
    data = Patches()
    x, y = data.test_images(10)
    want_x, want_y = next(iter(data.test_dataloader()))
    torch.testing.assert_close(x, want_x, rtol=0, atol=1e-6)
    assert torch.equal(y, want_y)
    assert len(data.test_images(1_000)[0]) == TEST


def test_the_preprocessing_is_that_of_the_loaders():
    data = Patches()
    x, _ = next(iter(data.test_dataloader()))
    shown = (data.preprocess.denormalize(x) * 255).round().to(torch.uint8)
    assert torch.equal(shown, data.splits.test_images[:10])


def test_the_files_are_read_once():
    data = Patches()
    assert data.edition == ""
    data.prepare_data()
    for stage in ("fit", "validate", "test"):
        data.setup(stage)
    data.train_dataloader()
    assert data.reads == 1
    assert data.edition == "an edition of its own"


def test_without_validation_there_is_no_loader_for_it():
    data = Patches(val_size=0)
    assert data.val_dataloader() == []
    assert data.train_size == TRAIN


def test_channels_last_reaches_the_batches():
    x, _ = next(iter(Patches(channels_last=True).train_dataloader()))
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 10}, "has 4 classes, and num_classes is 10"),
        ({"in_channels": 1}, r"has 3 channel\(s\), and in_channels is 1"),
        ({"val_size": -1}, "val_size must be in"),
        ({"val_size": TRAIN}, "val_size must be in"),
        ({"crop_padding": -1}, "at least 0"),
    ],
)
def test_what_does_not_fit_the_data_set_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Patches(**options)


def test_a_batch_size_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="batch size is 0"):
        Patches(batch_size=0).train_dataloader()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"train": 7}, "found 7 of"),
        ({"test": 30}, "and 30 of"),
        ({"shape": (3, 8, 9)}, r"\(3, 8, 9\)"),
        ({"labels": 5}, "labels reach from 0 to 4, and there are 4 classes"),
    ],
)
def test_files_of_something_else_are_a_data_error(made, words):
    data = Patches()
    data.made = lambda: _splits(**made)
    with pytest.raises(DataError, match=words):
        data.prepare_data()


class Linear(L.LightningModule):
    """Records the labels and devices that it gets."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(192, 4)
        self.seen = {"train": [], "val": [], "test": []}

    def _loss(self, batch, split):
        x, y = batch
        self.seen[split].append(y)
        return nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def training_step(self, batch, batch_idx):
        return self._loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self._loss(batch, "val"))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self._loss(batch, "test"))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(L.Callback):
    """Saves after one step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def _trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **(quiet | options))


@pytest.mark.parametrize("val_size", [20, 0])
def test_lightning_takes_the_loaders_without_a_warning(tmp_path, val_size):
    """Warnings are errors here. (Lightning warns of an empty list of loaders, so a run without validation limits it to 0.)"""
    validation = {} if val_size else {"limit_val_batches": 0}
    runs = [{"max_epochs": 2, "enable_checkpointing": False, "log_every_n_steps": 1}]
    for options in [{"fast_dev_run": True}, *runs] if val_size else runs:
        task, data, trainer = Linear(), Patches(val_size=val_size), _trainer(tmp_path, **options, **validation)
        trainer.fit(task, datamodule=data)
        trainer.test(task, datamodule=data, verbose=False)
    steps = (TRAIN - val_size) // 16
    assert len(task.seen["train"]) == 2 * steps
    first, second = (torch.cat(task.seen["train"][epoch * steps : (epoch + 1) * steps]).tolist() for epoch in (0, 1))
    assert first != second  # Lightning has set the epoch
    assert len(torch.cat(task.seen["test"])) == TEST


@pytest.mark.parametrize("step", [2, 7])
def test_lightning_goes_on_in_the_middle_of_an_epoch(tmp_path, step):
    """From a checkpoint taken at a step of 5 + 5, the rest of the labels are those of the run that was not interrupted."""
    straight = Linear()
    path = tmp_path / "cut.ckpt"
    saves = SaveAt(step, path)
    _trainer(tmp_path, max_epochs=2, enable_checkpointing=False, callbacks=[saves]).fit(straight, datamodule=Patches())
    rest = Linear()
    _trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(
        rest, datamodule=Patches(), ckpt_path=path, weights_only=True
    )
    assert torch.equal(torch.cat(rest.seen["train"]), torch.cat(straight.seen["train"][step:]))


def test_a_batch_on_its_device_is_not_touched_and_another_is_moved():
    data = Patches()
    batch = next(iter(data.test_dataloader()))
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    assert data.transfer_batch_to_device(batch, torch.device("meta"), 0)[0].is_meta
