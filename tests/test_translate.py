"""`dlzoo translate`: as many lines out as in, in their order, whatever the batches; and what is told when it can not."""

import io
import sys

import pytest

import dlzoo
from dlzoo import cli, translate
from dlzoo.errors import ConfigError, DataError
from dlzoo.rundir import write_json
from tests.datamodules import test_multi30k as captions


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A Transformer that has seen a few batches, and its run directory."""
    from dlzoo.datamodules.multi30k import Multi30k

    folder = tmp_path_factory.mktemp("translator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Multi30k, "published", captions.COUNTS)
        for split in captions.COUNTS:
            for language in ("de", "en"):
                captions.write(folder, language, split)
        words = ["experiment=multi30k_transformer", "trainer=cpu", f"data_dir={folder}", f"run_dir={folder}/run", "test=false"]
        words += ["data.source_vocab_size=300", "data.target_vocab_size=300", "data.batch_tokens=400", "task.max_length=12"]
        words += ["trainer.max_epochs=1", "model=transformer_small", "task.measured=0", "optimized_metric=val/loss"]
        return dlzoo.train(dlzoo.compose(*words, "optimized_mode=min"), words).dir


LINES = ["Ein Mann liest Zeile 3.", "", "Ein Mann liest", "Zeile ja ja ja ja ja 7.", "Ein Mann liest Zeile 3."]


@pytest.mark.parametrize("beams", [1, 3])
def test_each_line_has_its_translation_whatever_the_batches(run, beams):
    alone = [next(iter(translate.translate(run, [line], translate.Options(beams)))) for line in LINES]
    assert alone[0] == alone[4] != "" and alone[1] == ""
    for batch in (1, 2, 32):
        found = list(translate.translate(run, [f"  {line}\n" for line in LINES], translate.Options(beams, batch=batch)))
        assert found == alone


def test_lines_are_translated_as_they_come(run):
    read = []

    def lines():
        for line in LINES:
            read.append(line)
            yield line

    found = translate.translate(run, lines(), translate.Options(batch=2))
    next(found)
    assert len(read) == 2


def test_words_a_file_and_the_standard_input_say_the_same(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    assert cli.main(["translate", str(run), "--file", str(tmp_path / "lines.txt"), "--beam", "2"]) == 0
    of_file = capsys.readouterr().out.splitlines()
    assert len(of_file) == len(LINES)
    standard = io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", standard)
    assert cli.main(["translate", str(run), "--beam", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == of_file
    assert cli.main(["translate", str(run), *LINES[0].split(), "--beam", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == of_file[:1]


def test_the_picture_of_the_first_line(run, tmp_path, capsys):
    picture = tmp_path / "new" / "looks.png"
    assert cli.main(["translate", str(run), "Ein Mann", "--attention", str(picture)]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and str(picture) in said.err and picture.stat().st_size > 1_000


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--file", "nothing.txt"], 3, "there is no file nothing.txt"),
        (["--file", "EMPTY"], 3, "there is nothing to translate"),
        (["--file", "LATIN"], 3, "it is no text in UTF-8"),
        (["Ein", "--file", "EMPTY"], 2, "words and --file were given"),
        (["Ein", "--beam", "0"], 2, "--beam must be at least 1, got 0"),
        (["Ein", "--batch", "-1"], 2, "--batch must be at least 1, got -1"),
        (["Ein", "--attention", "looks.exe"], 2, "looks.exe is no picture"),
        (["Ein Mann " * 40], 3, "line 1 has "),
    ],
    ids=["no file", "empty", "latin", "both", "beam", "batch", "picture", "long"],
)
def test_what_can_not_be_is_told_without_a_traceback(run, tmp_path, capsys, words, code, said):
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "LATIN").write_bytes("Männer\n".encode("latin-1"))
    words = [str(tmp_path / word) if word in ("EMPTY", "LATIN") else word for word in words]
    assert cli.main(["translate", str(run), *words]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and len(error.splitlines()) <= 4


def test_a_run_of_another_kind_is_told_which_verb_it_has(tmp_path):
    for answers, verb in (
        ("text", "dlzoo generate"),
        ("labels", "dlzoo predict"),
        ("series", "experiment=multi30k_transformer"),
    ):
        folder = tmp_path / answers
        folder.mkdir()
        (folder / "config.yaml").write_text("name: x\n")
        write_json(folder / "summary.json", {"answers": answers, "preprocess": {}})
        with pytest.raises(ConfigError, match=f"the run does not translate: it answers with {answers}") as caught:
            translate.Translator(folder)
        assert verb in caught.value.fix
    with pytest.raises(ConfigError, match="is not the directory of a run"):
        translate.Translator(tmp_path / "nowhere")


def test_a_run_without_its_tokenizer_says_so(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="there is no tokenizer"):
        translate.Translator(tmp_path / "run")
