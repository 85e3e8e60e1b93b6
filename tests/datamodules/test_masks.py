"""CamVid and the ISBI membranes, from folders and from archives; small ones in the same form, the real ones where they are."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dlzoo.datamodules import camvid_small, isbi_membrane
from dlzoo.datamodules.camvid_small import CamvidSmall
from dlzoo.datamodules.isbi_membrane import IsbiMembrane
from dlzoo.errors import DataError

REAL = Path(os.environ.get("DLZOO_DATA", "data"))
SPLITS = {"train": 5, "val": 3, "test": 2}


def camvid(folder: Path) -> Path:
    """Frames whose red value, and masks whose label, is the number of the frame."""
    from PIL import Image

    for split, count in SPLITS.items():
        for number in range(count):
            frame = np.full((180, 240, 3), (number, 7, 9), np.uint8)
            mask = np.full((180, 240), number, np.uint8)
            mask[:10] = 11
            for name, pixels in ((split, frame), (f"{split}annot", mask)):
                (folder / "camvid_small" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / "camvid_small" / name / f"frame_{number}.png")
    return folder


def membranes(folder: Path) -> Path:
    from PIL import Image

    for number in range(30):  # 0.png, 1.png, 10.png, ...: the order of the stack is not that of the names
        for name, value in (("image", number), ("label", 255 * (number % 2))):
            (folder / "isbi_membrane" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((512, 512), value, np.uint8)).save(folder / "isbi_membrane" / name / f"{number}.png")
    return folder


def packed(folder: Path, name: str) -> Path:
    """The folders inside the data set's archive, and gone."""
    import shutil

    archive = folder / name / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:
        for below in sorted((folder / name).iterdir()):
            if below.is_dir():
                tar.add(below, f"{name}/{below.name}")
                shutil.rmtree(below)
    return archive


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(CamvidSmall, "published", tuple(SPLITS.values()))


@pytest.mark.parametrize("form", ["folders", "archive"])
def test_camvid_reads_each_split_with_its_masks(tmp_path, monkeypatch, small, form):
    import hashlib

    camvid(tmp_path)
    if form == "archive":
        content = packed(tmp_path, "camvid_small").read_bytes()
        monkeypatch.setattr(camvid_small, "SHA256", hashlib.sha256(content).hexdigest())
    data = CamvidSmall(tmp_path, batch_size=2, flip="none")
    for split, count in SPLITS.items():
        images, masks = data.splits[split]
        assert images.shape == (count, 3, 180, 240) and masks.shape == (count, 180, 240)
        assert images[:, 0, 50, 50].tolist() == masks[:, 50, 50].tolist() == list(range(count))
        assert (masks[:, :10] == 11).all()
    assert [len(y) for _, y in data.val_dataloader()] == [3]
    assert sum(len(y) for _, y in data.train_dataloader()) == 4  # the last batch is not full
    x, y = data.test_images(1)
    assert x.shape == (1, 3, 180, 240) and y.shape == (1, 180, 240)
    torch.testing.assert_close(
        data.preprocess.denormalize(x)[0, :, 0, 0] * 255, torch.tensor([0.0, 7.0, 9.0]), atol=1e-3, rtol=0
    )


def test_the_stack_is_cut_in_the_order_of_its_slices(tmp_path):
    data = IsbiMembrane(membranes(tmp_path))
    for split, numbers in {"train": range(20), "val": range(20, 25), "test": range(25, 30)}.items():
        images, masks = data.splits[split]
        assert images[:, 0, 0, 0].tolist() == list(numbers)
        assert masks[:, 0, 0].tolist() == [number % 2 for number in numbers]
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (4, 1, 256, 256) and y.shape == (4, 256, 256)
    assert len(data.train_dataloader()) == 20 * 4 // 4


def test_another_archive_is_named_and_left_alone(tmp_path, small):
    archive = packed(camvid(tmp_path), "camvid_small")
    with pytest.raises(DataError, match="is not the file that was measured with") as caught:
        CamvidSmall(tmp_path).setup()
    assert camvid_small.SHA256 in str(caught.value) and archive.is_file() and caught.value.exit_code == 3


@pytest.mark.parametrize(("kind", "name"), [(CamvidSmall, "camvid_small"), (IsbiMembrane, "isbi_membrane")])
def test_what_is_not_there_is_asked_for_by_its_place(tmp_path, kind, name):
    with pytest.raises(DataError) as caught:
        kind(tmp_path).setup()
    text = str(caught.value)
    assert f"{name} is not there" in text and str(tmp_path / name / f"{name}.tar") in text and "github.com" in text


def test_an_image_without_a_mask_is_told(tmp_path, small):
    camvid(tmp_path)
    (tmp_path / "camvid_small" / "trainannot" / "frame_3.png").unlink()
    with pytest.raises(DataError, match="frame_3 has no counterpart"):
        CamvidSmall(tmp_path).setup()


def test_a_label_that_is_no_class_is_told(tmp_path, small):
    from PIL import Image

    camvid(tmp_path)
    Image.fromarray(np.full((180, 240), 12, np.uint8)).save(tmp_path / "camvid_small" / "valannot" / "frame_1.png")
    with pytest.raises(DataError, match="the val masks have labels up to 12, and there are 11 classes"):
        CamvidSmall(tmp_path).setup()


def test_another_number_of_frames_is_told(tmp_path):
    with pytest.raises(DataError, match="expected 367 train images"):
        CamvidSmall(camvid(tmp_path)).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 12}, "CamvidSmall has 11 classes, and num_classes is 12"),
        ({"in_channels": 1}, r"CamvidSmall has 3 channel\(s\), and in_channels is 1"),
        ({"ignore_index": 255}, "CamvidSmall labels with 11 what has no label, and ignore_index is 255"),
        ({"crop": [10]}, "crop must be a height and a width"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        CamvidSmall(**options)


@pytest.mark.parametrize(
    ("kind", "module", "share"),
    [(CamvidSmall, camvid_small, 0.0396), (IsbiMembrane, isbi_membrane, 0.0)],
    ids=["camvid", "isbi"],
)
def test_the_real_data_have_the_mean_the_std_and_the_labels(kind, module, share):
    name = module.__name__.rsplit(".", 1)[-1]
    if not (REAL / name / f"{name}.tar").is_file():
        pytest.skip(f"{name}.tar is not in {REAL} (DLZOO_DATA)")
    data = kind(REAL)
    images, masks = data.splits["train"]
    values = images.double() / 255
    assert values.mean((0, 2, 3)).tolist() == pytest.approx(data.mean, abs=5e-5)
    assert values.std((0, 2, 3), correction=0).tolist() == pytest.approx(data.std, abs=5e-5)
    assert (masks == data.unlabelled).double().mean().item() == pytest.approx(share, abs=1e-4)
    assert set(masks.unique().tolist()) - {data.unlabelled} == set(range(len(data.classes)))
