"""The texts that a run of a language model leaves: what it was given, and what it wrote last."""

from types import SimpleNamespace

import torch

from dlzoo.callbacks.pictures.text import RULE, TextSamples
from dlzoo.data.tokenizers import Characters

LETTERS = Characters("abcdefghij", unknown=True)


def _tokens(*texts):
    return torch.stack([torch.from_numpy(LETTERS.encode(text)) for text in texts])


def _samples(folder):
    return TextSamples(folder, "plays", SimpleNamespace(tokenizer=LETTERS), mistakes=32)


def test_the_first_windows_are_written(tmp_path):
    x = _tokens("abc", "def", "ghi", "jjj", "aaa")
    _samples(tmp_path).first((x, x))
    lines = (tmp_path / "batch.txt").read_text().splitlines()
    assert lines[0].startswith("plays: ") and [line for line in lines[1:] if line != RULE] == ["abc", "def", "ghi", "jjj"]


def test_what_the_network_wrote_last_is_shown(tmp_path):
    samples, x = _samples(tmp_path), _tokens("abc")
    for wrote in ("defg", "hij?"):
        samples.clear()
        samples.watch({"prompt": x[0], "sample": _tokens(wrote)[0]}, (x, x))
        samples.watch({}, (x, x))  # later batches bring none
        samples.draw("validation")
    text = (tmp_path / "samples.txt").read_text()
    assert "plays, validation" in text and text.count(RULE) == 3 and "defg" not in text
    assert text.index("abc") < text.index("hij\ufffd")


def test_an_evaluation_without_a_sample_leaves_the_file_alone(tmp_path):
    samples, x = _samples(tmp_path), _tokens("abc")
    samples.watch({"prompt": x[0], "sample": x[0]}, (x, x))
    samples.draw("validation")
    before = (tmp_path / "samples.txt").read_text()
    samples.clear()
    samples.draw("test")
    assert (tmp_path / "samples.txt").read_text() == before
