"""Spoken digits: the published split, where the files are looked for; and what a folder of something else is told."""

import tarfile

import pytest
import soundfile
import torch

from dlzoo.datamodules.spoken_digits import SpokenDigits
from dlzoo.errors import DataError

SPEAKERS, TAKES = ("ann", "bob"), (0, 4, 5, 12)


def _recordings(folder, rate=8_000):
    """A recording of each digit, speaker and take, whose first half says which it is."""
    folder.mkdir(parents=True)
    for number, (digit, speaker, take) in enumerate((d, s, t) for d in range(10) for s in SPEAKERS for t in TAKES):
        wave = torch.full((rate // 4,), (number + 1) / 100)
        soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", wave.numpy(), rate)
    (folder / "README.md").write_text("no recording")
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(SpokenDigits, "published", (40, 40))


@pytest.mark.parametrize("place", ["folder", "flat", "tar", "tar.gz"])
def test_the_files_are_found_and_split_by_take(tmp_path, small, place):
    root = tmp_path / "free_spoken_digits"
    if place in ("folder", "flat"):
        _recordings(root / "recordings" if place == "folder" else root)
    else:
        root.mkdir()
        made = _recordings(tmp_path / "recordings")
        with tarfile.open(root / f"recordings.{place}", "w:gz" if place == "tar.gz" else "w") as tar:
            tar.add(made, "recordings")
    data = SpokenDigits(tmp_path, val_size=8, samples=4_000, normalize=False)
    train, labels, test, test_labels, *_ = data.splits
    assert train.shape == test.shape == (40, 4_000) and train.dtype == torch.int16
    assert labels.bincount().tolist() == test_labels.bincount().tolist() == [4] * 10
    # which recordings: the number that stands in each, back from 16 bits
    numbers = [round(wave[2_000].item() / 327.68) - 1 for wave in test]
    assert sorted(number % 4 for number in numbers) == [0] * 20 + [1] * 20  # takes 0 and 4
    assert [number // 8 for number in numbers] == test_labels.tolist()
    assert (train[:, :1_000] == 0).all() and (train[:, 1_001:2_999] != 0).all()  # silence on both sides


def test_training_validation_and_test_are_apart_and_the_same_for_every_seed(tmp_path, small):
    _recordings(tmp_path / "free_spoken_digits")
    one, two = (SpokenDigits(tmp_path, val_size=8, batch_size=32, shift=0, gain=0, seed=seed) for seed in (1, 2))
    kept, held = one.cut()
    assert len(kept) == one.train_size == 32 and len(held) == 8 and not set(kept.tolist()) & set(held.tolist())
    (x, _), (x2, _) = (next(iter(data.val_dataloader())) for data in (one, two))
    assert torch.equal(x, x2) and x.shape == (8, 1, 6_000)
    (x, y), (_, y2) = (next(iter(data.train_dataloader())) for data in (one, two))
    assert x.shape == (32, 1, 6_000) and y.tolist() != y2.tolist()
    assert torch.equal(one.test_images(7)[0], next(iter(one.test_dataloader()))[0][:7])
    assert SpokenDigits(tmp_path, val_size=0).val_dataloader() == []


def test_another_rate_is_resampled_once(tmp_path, small):
    _recordings(tmp_path / "free_spoken_digits", rate=16_000)
    data = SpokenDigits(tmp_path, samples=4_000, val_size=8)
    assert data.splits.train_images.shape == (40, 4_000) and data.preprocess.sample_rate == 8_000
    assert (data.splits.train_images[:, 2_000] > 0).all()


def test_what_is_missing_or_something_else_is_told(tmp_path, small):
    with pytest.raises(DataError, match="there are no spoken digits") as caught:
        SpokenDigits(tmp_path, val_size=8).prepare_data()
    assert "git clone https://github.com/Jakobovski" in caught.value.fix and str(tmp_path) in caught.value.fix
    folder = _recordings(tmp_path / "free_spoken_digits")
    (folder / "3_bob_4.wav").unlink()
    with pytest.raises(DataError, match=r"found 40 of .* and 39 of"):
        SpokenDigits(tmp_path, val_size=8).prepare_data()
    (folder / "3_bob_4.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"3_bob_4\.wav is not a readable recording"):
        SpokenDigits(tmp_path, val_size=8).prepare_data()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"num_classes": 35}, "has 10 classes"),
        ({"in_channels": 3}, "1 channel"),
        ({"val_size": 2_700}, "val_size"),
        ({"shift": -1}, "shift"),
    ],
)
def test_what_does_not_fit_is_refused(words, match):
    with pytest.raises(ValueError, match=match):
        SpokenDigits(**words)


def test_the_published_recordings(data_dir):
    data = SpokenDigits(data_dir)
    train, labels, test, test_labels, *_ = data.splits
    assert labels.bincount().tolist() == [270] * 10 and test_labels.bincount().tolist() == [30] * 10
    assert train.shape == (2_700, 6_000) and not (train == 0).all(1).any()
    both = torch.cat([train, test]).float().abs().amax(1) / 32_768
    assert (both > 0.999).all()
    assert len({wave.numpy().tobytes() for wave in torch.cat([train, test])}) >= 2_990  # nothing is in both
