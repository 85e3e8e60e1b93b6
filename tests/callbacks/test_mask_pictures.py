"""The pictures of masks: what is kept of an evaluation, and that the files appear."""

from types import SimpleNamespace

import pytest
import torch

from dlzoo.callbacks.pictures import masks
from dlzoo.callbacks.pictures.masks import MaskPictures
from dlzoo.data.preprocess import Preprocess

CLASSES = ("sky", "road", "car")


@pytest.fixture
def pictures(tmp_path):
    data = SimpleNamespace(classes=CLASSES, preprocess=Preprocess(3, 8, 10, (0.5,) * 3, (0.2,) * 3))
    data.test_images = lambda count: (torch.zeros(count, 3, 8, 10), torch.zeros(count, 8, 10, dtype=torch.long))
    return MaskPictures(tmp_path, "camvid_deeplab", data, mistakes=32)


def batch(count: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    truth = torch.randint(3, (count, 8, 10), generator=random)
    truth[:, 0] = 255
    return torch.randn(count, 3, 8, 10, generator=random), truth, torch.randint(3, (count, 8, 10), generator=random)


def test_counts_first_and_worst(pictures, monkeypatch, tmp_path):
    drawn = {}
    real = masks.confusion
    monkeypatch.setattr(masks, "confusion", lambda matrix, *words: drawn.update(matrix=matrix) or real(matrix, *words))
    losses = torch.tensor([[0.3, 0.9, 0.1], [0.8, 0.2, 0.7], [0.4, 0.95, 0.05]])
    expected = torch.zeros(3, 3, dtype=torch.long)
    for seed, each in enumerate(losses):
        images, truth, predicted = batch(3, seed)
        pictures.watch({"predicted": predicted, "losses": each}, (images, truth))
        for t, p in zip(truth[truth < 3].tolist(), predicted[truth < 3].tolist(), strict=True):
            expected[t, p] += 1
    assert [round(shown[0], 2) for shown in pictures._first] == [0.3, 0.9, 0.1, 0.8]
    assert [round(shown[0], 2) for shown in pictures._worst] == [0.95, 0.9, 0.8, 0.7]
    pictures.gather(SimpleNamespace(reduce=lambda tensor, reduce_op: 2 * tensor))  # two ranks that counted the same
    pictures.draw("validation")
    assert torch.equal(drawn["matrix"], 2 * expected)
    assert {"confusion.png", "masks.png", "mistakes.png"} == {path.name for path in tmp_path.iterdir()}
    pictures.clear()
    assert not pictures._first and not pictures._worst and pictures._matrix is None


def test_the_first_batch_and_an_example(pictures, tmp_path):
    images, truth, _ = batch(6, 0)
    pictures.first((images, truth))
    assert {"samples.png", "example.png"} == {path.name for path in tmp_path.iterdir()}


def test_overlaps_are_those_of_the_matrix():
    matrix = torch.tensor([[6, 2, 0], [2, 10, 0], [0, 0, 0]])
    assert masks._overlaps(matrix) == ["0.60", "0.71", "-"]
