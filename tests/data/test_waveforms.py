"""Recordings from files: any rate, any number of channels, any length; what is no recording is named."""

import builtins
import sys
import threading

import pytest
import soundfile
import torch

from dlzoo.data import waveforms
from dlzoo.data.waveforms import WaveformPreprocess, fit, read_waveform, torchaudio, write_waveform
from dlzoo.errors import ConfigError, DataError


def _tone(rate, seconds=0.5, hertz=440.0):
    return 0.5 * (2 * torch.pi * hertz * torch.arange(round(rate * seconds)) / rate).sin()


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_what_was_written_is_read_to_16_bits(tmp_path, ending):
    wave = _tone(8_000)
    write_waveform(wave, tmp_path / f"tone.{ending}", 8_000)
    for given in (tmp_path / f"tone.{ending}", (tmp_path / f"tone.{ending}").read_bytes()):
        found = read_waveform(given, 8_000)
        assert found.shape == (4_000,) and (found - wave).abs().max() <= 1 / 32_768


def test_what_is_too_loud_is_cut_off_and_does_not_wrap_round(tmp_path):
    write_waveform(torch.tensor([2.0, -2.0]), tmp_path / "loud.wav", 8_000)
    assert read_waveform(tmp_path / "loud.wav", 8_000).sign().tolist() == [1, -1]


def test_channels_are_averaged(tmp_path):
    left, right = _tone(8_000), _tone(8_000, hertz=700.0)
    soundfile.write(tmp_path / "stereo.wav", torch.stack([left, right], 1).numpy(), 8_000, subtype="FLOAT")
    torch.testing.assert_close(read_waveform(tmp_path / "stereo.wav", 8_000), (left + right) / 2)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 4_000])
def test_another_rate_is_the_same_tone(tmp_path, rate):
    write_waveform(_tone(rate), tmp_path / "tone.wav", rate)
    found = read_waveform(tmp_path / "tone.wav", 8_000)
    assert abs(len(found) - 4_000) <= 1
    inner = slice(200, 3_800)  # the ends ring
    assert (found[inner] - _tone(8_000)[inner]).abs().max() < 0.02


def test_fit_pads_on_both_sides_and_keeps_the_loudest_part():
    assert fit(torch.tensor([1.0, 2.0]), 5).tolist() == [0, 1, 2, 0, 0]
    wave = torch.zeros(1_000)
    wave[700:710] = 1.0
    wave[100:105] = 1.0
    kept = fit(wave, 50)
    assert len(kept) == 50 and kept.sum() == 10
    assert torch.equal(fit(torch.ones(7), 7), torch.ones(7))


def test_the_preprocessing_is_plain_values_and_back(tmp_path):
    preprocess = WaveformPreprocess(8_000, 6_000, normalize=False)
    assert preprocess.as_dict() == {"kind": "wave", "sample_rate": 8_000, "samples": 6_000, "normalize": False}
    assert WaveformPreprocess.from_dict(preprocess.as_dict()) == preprocess
    assert preprocess.shape == (1, 6_000) and preprocess.channels == 1
    write_waveform(_tone(16_000), tmp_path / "tone.wav", 16_000)
    x = preprocess(tmp_path / "tone.wav")
    assert x.shape == preprocess.shape and x.dtype == torch.float32
    preprocess.save(x, tmp_path / "again.wav")
    assert (preprocess(tmp_path / "again.wav") - x).abs().max() <= 1 / 32_768
    assert preprocess.spectrogram(x).shape == (1, 40, 1 + 6_000 // 64)
    with pytest.raises(ValueError, match="samples"):
        WaveformPreprocess(8_000, 0)


def test_a_whisper_is_as_loud_as_a_shout_and_silence_is_silence():
    preprocess = WaveformPreprocess(8_000, 6_000)
    loud, soft = preprocess.prepare(_tone(8_000)), preprocess.prepare(_tone(8_000) / 50)
    torch.testing.assert_close(loud, soft)
    assert loud.abs().max() == 1 and not preprocess.prepare(torch.zeros(9)).any()


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no recording" * 50, b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(30)])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a readable recording") as caught:
        read_waveform(path, 8_000)
    assert caught.value.where == str(path) and caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"archive: a\.wav is not"):
        read_waveform(content, 8_000, "archive: a.wav")


def test_a_recording_of_nothing_and_one_that_is_not_there(tmp_path):
    soundfile.write(tmp_path / "empty.wav", torch.zeros(0).numpy(), 8_000)
    with pytest.raises(DataError, match="holds no sample"):
        read_waveform(tmp_path / "empty.wav", 8_000)
    with pytest.raises(DataError, match="there is no recording"):
        read_waveform(tmp_path / "nothing.wav", 8_000)


# --- the extra


@pytest.fixture
def forgotten(monkeypatch):
    """torchaudio as if it had never been imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)


def test_torch_has_its_version_back_whatever_the_import_does(monkeypatch, forgotten):
    seen, plain = [], builtins.__import__

    def spy(name, *rest):
        if name == "torchaudio":
            seen.append(torch.version.cuda)
            raise ImportError("not here")
        return plain(name, *rest)

    monkeypatch.setattr(torch.version, "cuda", "99.9")
    monkeypatch.setattr(builtins, "__import__", spy)
    with pytest.raises(ConfigError, match="torchaudio") as caught:
        torchaudio()
    assert seen == [None] and torch.version.cuda == "99.9"
    assert caught.value.fix == 'pip install "dlzoo[audio]"' and caught.value.exit_code == 2


def test_it_is_imported_beside_a_torch_of_any_cuda_by_several_threads(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "99.9")
    found = []
    threads = [threading.Thread(target=lambda: found.append(torchaudio())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(hasattr(module.functional, "resample") for module in found)
    assert torch.version.cuda == "99.9"


def test_a_missing_soundfile_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ConfigError, match="soundfile") as caught:
        read_waveform(tmp_path / "a.wav", 8_000)
    assert "dlzoo[audio]" in caught.value.fix


def test_a_recording_of_the_right_rate_needs_no_torchaudio(monkeypatch, tmp_path):
    write_waveform(_tone(8_000), tmp_path / "tone.wav", 8_000)
    monkeypatch.setattr(waveforms, "torchaudio", lambda: pytest.fail("it was imported"))
    assert len(read_waveform(tmp_path / "tone.wav", 8_000)) == 4_000
