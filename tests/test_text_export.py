"""`dlzoo export` of a run of texts: two files, compared with torch and with the text that it writes."""

import json
import sys
from pathlib import Path

import onnx
import pytest

from dlzoo import cli, generate, verbs
from dlzoo.errors import ConfigError, NumericalError
from dlzoo.export import play

sys.path.insert(0, str(Path(__file__).parent))
from text_runs import merged, text_run


def test_a_language_model(tmp_path, capsys):
    run = text_run(tmp_path / "run", "gru", merged())
    (run / "text").mkdir()
    (run / "text" / "a.txt").write_text("abc é the cat\nsat on a mat.\n" * 20, encoding="utf-8")
    assert cli.main(["export", str(run)]) == 0
    out, error = capsys.readouterr()
    assert error == "" and "model.onnx" in out and "step.onnx" in out
    assert "on texts of the test split; 600 greedy tokens of onnxruntime are torch's" in out
    assert sorted(path.name for path in (run / "export").iterdir()) == ["model.onnx", "model.onnx.json", "step.onnx"]
    report = json.loads((run / "export" / "model.onnx.json").read_text())
    assert report["inputs"]["step.onnx"] == {"tokens": {"0": "batch", "1": "length"}, "h": {"1": "batch"}}
    assert all(file["max_rel"] < 1e-4 and file["top1"] == 1.0 for file in report["files"].values())
    stored = {entry.key: entry.value for entry in onnx.load(run / "export" / "step.onnx").metadata_props}
    assert stored["kind"] == "language_model" and stored["context"] == "null" and stored["model"] == "gru"
    model = play.LanguageModel(run / "export")  # text in and out, without torch and without dlzoo's tokenizers
    new = list(model.write(model.tokens.encode("abc é"), 30))
    (ours,) = generate.generate(run, "abc é", generate.Options(tokens=30, temperature=0.0))
    assert model.tokens.decode(new) == ours.text


@pytest.mark.slow  # two exports
def test_without_its_data_and_where_the_texts_differ(tmp_path, monkeypatch):
    """A file that computes the same to 1e-4 and yet writes another text is not left."""
    run = text_run(tmp_path / "run", "rnn")
    original, calls = play.LanguageModel.write, []

    def other(self, prompt, count, pick=play.best):
        calls.append(prompt)
        tokens = list(original(self, prompt, count, pick))
        return [*tokens[:150], (tokens[150] + 1) % 14, *tokens[151:]] if len(calls) == 2 else tokens

    monkeypatch.setattr(play.LanguageModel, "write", other)
    with pytest.raises(NumericalError, match="another text than torch, from token 150 of text 1 on"):
        verbs.export(run)
    assert list((run / "export").iterdir()) == []
    path, report = verbs.export(run)
    assert path.name == "model.onnx" and report["texts"].startswith("tokens at random, for the data is not here")


def test_the_verbs_for_pictures_say_what_is_for_texts(tmp_path):
    run = text_run(tmp_path / "run", "rnn")
    with pytest.raises(ConfigError, match="the run is of text") as caught:
        verbs.predict(run, tmp_path)
    assert caught.value.fix == f"dlzoo generate {run}"
