"""Speech Commands: an archive of the published form, made here; its lists decide what trains, validates and tests."""

import io
import tarfile

import pytest
import soundfile
import torch

from dlzoo.datamodules import speech_commands
from dlzoo.datamodules.speech_commands import FILE, SHA256, SpeechCommands
from dlzoo.errors import DataError

WORDS = ("yes", "no", "backward")
VALIDATION, TEST = (3, 4), (5,)  # of six recordings of each word


def _wav(value, samples=16_000):
    file = io.BytesIO()
    soundfile.write(file, torch.full((samples,), value).numpy(), 16_000, format="WAV")
    return file.getvalue()


def _files():
    files = {"README.md": b"words", "LICENSE": b"CC BY 4.0", "_background_noise_/pink.wav": _wav(0.9)}
    for w, word in enumerate(WORDS):
        files |= {f"{word}/0000000{n}_nohash_0.wav": _wav((6 * w + n + 1) / 100, 15_000 + 200 * n) for n in range(6)}
    for name, numbers in (("validation_list.txt", VALIDATION), ("testing_list.txt", TEST)):
        files[name] = "".join(f"{word}/0000000{n}_nohash_0.wav\n" for word in WORDS for n in numbers).encode()
    return files


def _archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(SpeechCommands, "published", (15, 3))
    monkeypatch.setattr(SpeechCommands, "validation", 6)
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "cache"))


def _numbers(waves):
    return [round(wave[wave.shape[0] // 2].item() / 327.68) - 1 for wave in waves]


@pytest.mark.parametrize("place", ["archive", "folder", "torchaudio"])
def test_the_lists_decide(tmp_path, place):
    if place == "archive":
        _archive(tmp_path / "speech_commands" / FILE, _files())
    else:
        root = tmp_path / ("speech_commands" if place == "folder" else "SpeechCommands/speech_commands_v0.02")
        for name, content in _files().items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    data = SpeechCommands(tmp_path, normalize=False)
    kept, held = data.cut()
    train, test = data.splits.train_images, data.splits.test_images
    assert sorted(_numbers(train[kept])) == [6 * w + n for w in range(3) for n in (0, 1, 2)]
    assert sorted(_numbers(train[held])) == [6 * w + n for w in range(3) for n in VALIDATION]
    assert sorted(_numbers(test)) == [6 * w + n for w in range(3) for n in TEST]
    assert train.shape == (15, 16_000) and data.train_size == 9
    names = {speech_commands.SpeechCommands.classes[label] for label in data.splits.test_labels.tolist()}
    assert names == set(WORDS)
    words = [WORDS[number // 6] for number in _numbers(train)]
    assert [data.classes[label] for label in data.splits.train_labels.tolist()] == words
    x, _ = next(iter(data.val_dataloader()))
    assert x.shape == (6, 1, 16_000) and _numbers(x[:, 0] * 32_768) == _numbers(train[held])


def test_the_second_start_reads_a_cache_of_its_own_rate(tmp_path, monkeypatch):
    _archive(tmp_path / "speech_commands" / FILE, _files())
    first = SpeechCommands(tmp_path, normalize=False).splits
    monkeypatch.setattr(SpeechCommands, "_read", lambda *_: pytest.fail("it was read again"))
    again = SpeechCommands(tmp_path, normalize=False).splits
    assert all(torch.equal(one, two) for one, two in zip(first[:4], again[:4], strict=True))
    monkeypatch.undo()
    monkeypatch.setattr(SpeechCommands, "published", (15, 3))
    monkeypatch.setattr(SpeechCommands, "validation", 6)
    half = SpeechCommands(tmp_path, sample_rate=8_000, samples=8_000, normalize=False).splits
    assert half.train_images.shape == (15, 8_000) and _numbers(half.train_images) == _numbers(first.train_images)


def test_what_is_missing_is_told_with_its_address_and_place(tmp_path):
    with pytest.raises(DataError) as caught:  # tests are offline
        SpeechCommands(tmp_path).prepare_data()
    text = str(caught.value)
    assert (
        str(tmp_path / "speech_commands" / FILE) in text
        and f"https://storage.googleapis.com/download.tensorflow.org/data/{FILE}" in text
    )


def test_the_hash_is_the_one_that_torchaudio_states():
    from dlzoo.data.waveforms import torchaudio

    stated = torchaudio().datasets.speechcommands._CHECKSUMS
    assert SHA256 in [value for url, value in stated.items() if url.endswith(FILE)]


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("yes/00000004_nohash_0.wav", "lacks 1 listed"),
        ("testing_list.txt", "lacks"),
        ("no/00000001_nohash_0.wav", "found 14 of .* and 3 of"),
    ],
)
def test_an_archive_that_lacks_something_is_refused(tmp_path, lost, words):
    files = _files()
    del files[lost]
    _archive(tmp_path / "speech_commands" / FILE, files)
    with pytest.raises(DataError, match=words):
        SpeechCommands(tmp_path).prepare_data()


def test_there_are_35_words():
    assert len(SpeechCommands.classes) == len(set(SpeechCommands.classes)) == 35
    assert list(SpeechCommands.classes) == sorted(SpeechCommands.classes)
