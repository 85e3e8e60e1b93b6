"""A picture becomes the same input everywhere, whatever mode it is stored in."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dlzoo.data.preprocess import Preprocess, read_image
from dlzoo.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _noise(width, height, mode="RGB"):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("size", [(300, 200), (200, 301), (256, 256), (60, 90)])
def test_resize_and_crop_are_those_of_torchvision(size):
    from torchvision.transforms import v2

    image = _noise(*size)
    steps = [v2.Resize(64), v2.CenterCrop(56), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    torch.testing.assert_close(Preprocess(3, 56, 56, MEAN, STD, resize=64)(image), v2.Compose(steps)(image), rtol=0, atol=1e-5)


def test_without_a_shorter_side_the_picture_is_resized_straight():
    preprocess = Preprocess(1, 28, 20, (0.5,), (0.25,))
    assert preprocess(_noise(100, 33)).shape == (1, 28, 20)
    same = _noise(20, 28, "L")
    want = (np.asarray(same) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(preprocess(same)[0].numpy(), want, atol=1e-5)


def test_normalize_and_denormalize_are_inverse():
    preprocess = Preprocess(3, 8, 8, MEAN, STD)
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    x = preprocess.normalize(images)
    torch.testing.assert_close(preprocess.denormalize(x), images / 255, rtol=0, atol=1e-6)
    torch.testing.assert_close(preprocess.denormalize(x[0]), images[0] / 255, rtol=0, atol=1e-6)
    assert preprocess.denormalize(torch.full((3, 8, 8), 99.0)).max() == 1


@pytest.mark.parametrize("resize", [None, 9])
def test_it_survives_json(resize):
    preprocess = Preprocess(3, 8, 8, MEAN, STD, resize=resize)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.as_dict()))) == preprocess


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((2, 8, 8, (0.5, 0.5), (1, 1)), "1 or 3"),
        ((3, 8, 8, (0.5,), (1,)), r"need 3 value\(s\)"),
        ((1, 8, 8, (0.5,), (1,), 7), "at least the side of the crop"),
    ],
)
def test_what_does_not_fit_together_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Preprocess(*values)


def _palette(path):
    image = _noise(9, 7).quantize(16)
    image.save(path, transparency=bytes(range(16)))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("grey.png", lambda path: _noise(9, 7, "L").save(path)),
        ("alpha.png", lambda path: _noise(9, 7).convert("RGBA").save(path)),
        ("palette.png", _palette),
        ("palette.gif", lambda path: _noise(9, 7).quantize(16).save(path)),
        ("bits.png", lambda path: _noise(9, 7, "L").convert("1").save(path)),
        ("cmyk.jpg", lambda path: _noise(9, 7).convert("CMYK").save(path)),
        ("deep.png", lambda path: Image.fromarray(np.full((7, 9), 32_896, np.uint16)).save(path)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_rgb(tmp_path, name, save, channels):
    save(tmp_path / name)
    image = read_image(tmp_path / name, channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    assert image.size == (9, 7)
    if name == "deep.png":  # 16 bits: 32,896 is 128 of 255
        assert image.getextrema() == ((128, 128) if channels == 1 else ((128, 128),) * 3)


def test_a_camera_held_upright_gives_an_upright_picture(tmp_path):
    image = Image.new("RGB", (20, 10))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png", 3)
    assert upright.size == (10, 20)
    assert upright.getpixel((9, 0)) == (255, 255, 255)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"not a picture", lambda data: data[: len(data) // 2]])
def test_a_damaged_picture_is_named(tmp_path, damage):
    path = tmp_path / "bad one.jpg"
    _noise(64, 64).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"bad one[.]jpg is not a readable picture") as caught:
        Preprocess(3, 8, 8, MEAN, STD)(path)
    assert caught.value.exit_code == 3
    assert caught.value.where == str(path)


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no picture"):
        read_image(tmp_path / "nowhere.png", 3)
