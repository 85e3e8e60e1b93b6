"""`dlzoo explain` of runs of text, and of untrained recurrent networks."""

import json
import random

import pytest
import torch

import dlzoo
from dlzoo import cli, insight_text

SENTENCE = "the cat and the dog of the old house were in the garden while it rained and nobody saw them"
WORDS = SENTENCE.split()
QUICK = (
    *("data=text_files", "data.tokenizer=characters", "data.context=12", "task=language_modeling"),
    *("optimizer=adamw", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1"),
    *("task.sample_length=0", "test=false"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A GPT and an LSTM, hardly trained, on the same text."""
    folder = tmp_path_factory.mktemp("text")
    chance = random.Random(0)
    text = "".join(f"{' '.join(chance.choices(WORDS, k=6))}.\n" for _ in range(600))
    (folder / "text.txt").write_text(text)
    made = {}
    for name, words in {"gpt": ("model=gpt_char", "model.context=12"), "lstm": ("model=char_lstm", "model.width=16")}.items():
        size = len(set(text)) + 1
        given = [*QUICK, f"data.vocab_size={size}", f"data.root={folder}/text.txt", f"name={name}"]
        made[name] = dlzoo.train(dlzoo.compose(*given, *words, f"run_dir={folder}/{name}"))
    return made


@pytest.fixture
def say(capsys):
    def run(*words):
        capsys.readouterr()
        code = cli.main(["explain", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def not_empty(path):
    from PIL import Image

    with Image.open(path) as image:
        assert image.convert("L").getextrema()[0] < 100 and image.size[0] > 400, path


def test_all_pictures_of_a_gpt(runs, say):
    code, out, err = say(runs["gpt"].dir, "--top", 2)
    assert code == 0 and "left out" not in out, err
    for name, line in insight_text.TEXT.items():
        not_empty(runs["gpt"].dir / "explain" / f"{name}.png")
        assert line in out
    rows = [line for line in out.splitlines() if " then " in line]
    assert len(rows) == 11 and all(row.count("%") == 3 for row in rows)  # of the 12 tokens of the context, with 2 choices


def test_the_table_says_what_the_network_says(runs, say):
    """Of a text of one's own, without the data: the probabilities are the softmax of the run's own logits."""
    code, out, err = say(runs["gpt"].dir, "next", "--text", "the cat", "--top", 3, "data_dir=/nowhere")
    assert code == 0, err
    net, tokenizer = runs["gpt"].load(), insight_text.tokenizer_of(runs["gpt"])
    tokens = torch.as_tensor(tokenizer.encode("the cat"))
    with torch.no_grad():
        chances = net(tokens[None])[0].softmax(-1)
    rows = [line.split() for line in out.splitlines() if " then " in line]
    assert [row[2].rstrip() for row in rows] == list("he\N{MIDDLE DOT}cat")
    for place, row in enumerate(rows):
        assert row[3] == f"{chances[place, tokens[place + 1]]:.1%}"
        (best,) = insight_text.shown(tokenizer, chances[place].argmax()[None])
        expected = row[row.index("expected") + 1 :]
        assert expected[0] == best and ("*" in row) == (best == row[2])


def test_an_lstm_has_no_heads_and_its_gradients_stand_beside_anothers(runs, say):
    code, out, err = say(runs["lstm"].dir, "--beside", runs["gpt"].dir)
    assert code == 0 and "heads: left out, CharRNN has no attention" in out, err
    assert not (runs["lstm"].dir / "explain" / "heads.png").exists()
    not_empty(runs["lstm"].dir / "explain" / "gradients.png")


def test_one_layer(runs, say):
    code, out, err = say(runs["gpt"].dir, "heads", "--layer", "blocks.1", "--json")
    assert code == 0 and json.loads(out) == [str(runs["gpt"].dir / "explain" / "heads.png")], err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gradcam"], ["there is no picture 'gradcam' of this kind of run", "heads, next, gradients"]),
        (["nexr"], ["did you mean 'next'"]),
        (["heads", "--layer", "blocks.1.mlp"], ["no attention in blocks.1.mlp", "blocks.0.attention"]),
        (["--picture", "x.png"], ["the run is of text, and --picture is not"]),
        (["next", "--text", "x"], ["--text must be at least 2 tokens, got 1"]),
        (["--gradients"], ["--gradients is of untrained networks"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_a_few_lines(runs, say, words, expected):
    code, out, err = say(runs["gpt"].dir, *words)
    assert code == 2 and out == "" and len(err.strip().splitlines()) <= 5
    for word in expected:
        assert word in err, err


def test_a_run_of_something_else_is_told(runs, say):
    summary = json.loads((runs["gpt"].dir / "summary.json").read_text())
    before = json.dumps(summary)
    summary["preprocess"]["kind"] = "series"
    (runs["gpt"].dir / "summary.json").write_text(json.dumps(summary))
    try:
        code, _, err = say(runs["gpt"].dir)
    finally:
        (runs["gpt"].dir / "summary.json").write_text(before)
    assert code == 2 and "the run is of series, of which no pictures are drawn" in err


def test_which_run(say):
    code, _, err = say()
    assert code == 2 and "which run?" in err and "dlzoo list runs" in err


def test_gradients_through_time_without_a_run(say, monkeypatch, tmp_path):
    """The text has the numbers of the measurement: with open gates more is left, and of an RNN nothing."""
    monkeypatch.setattr(insight_text, "STEPS", 40)
    monkeypatch.setattr(insight_text, "SEEDS", 2)
    monkeypatch.chdir(tmp_path)
    code, out, err = say("--gradients")
    assert code == 0, err
    not_empty(tmp_path / "gradients_through_time.png")
    left = {line[2:25].strip(): float(line[25:33]) for line in out.splitlines() if "reaches" in line}
    assert list(left) == ["RNN", "GRU", "LSTM, as torch begins", *(f"LSTM, forget bias {bias}" for bias in (0, 1, 2))]
    assert left["RNN"] < 1e-6 and left["GRU"] < 1e-6 and left["LSTM, as torch begins"] < 1e-6
    assert left["LSTM, forget bias 0"] < 1e-3 * left["LSTM, forget bias 1"] < 1e-4 * left["LSTM, forget bias 2"]
    code, _, err = say("--gradients", "--out", tmp_path / "gradients_through_time.png" / "x.png")
    assert code == 2 and "can not be written" in err


@pytest.mark.parametrize("kind", ["transformer", "seq2seq"])
def test_a_translator_shows_its_heads_and_its_alignment(monkeypatch, tmp_path, kind):
    """Of a sentence of one's own: what it writes is read again, and the words stand at the maps."""
    from types import SimpleNamespace

    from dlzoo import insight, verbs
    from dlzoo.data import sentences
    from dlzoo.models.language.transformer import Transformer, TransformerSize
    from dlzoo.models.sequence.seq2seq import Seq2Seq, Seq2SeqSize

    made = sentences.Sentences.train(["the cat sat", "a dog ran"] * 9, 265)
    made.tokenizer.save(tmp_path / "words.json")
    torch.manual_seed(0)
    if kind == "transformer":
        net = Transformer(265, 265, TransformerSize(width=12, depth=2, heads=2, hidden=10)).eval()
    else:
        net = Seq2Seq(265, 265, size=Seq2SeqSize(embedding=6, width=8)).eval()
    monkeypatch.setattr(verbs, "load", lambda *_: net)
    how = {"kind": "sentences", "source_tokenizer": "words.json", "target_tokenizer": "words.json"}
    run = SimpleNamespace(config={"name": "x"}, summary={"preprocess": how}, dir=tmp_path)
    look = insight_text.SentencesLook(run, tmp_path, insight.Options(text="the cat ran"))
    source, target, read, written = look.pair
    assert "".join(read[:-1]).replace("\N{MIDDLE DOT}", "") == "thecatran" and read[-1] == written[-1] == "(end)"
    assert len(read) == source.shape[1] and len(written) == target.shape[1]
    figure = look.draw("align")["align"]
    torch.testing.assert_close(torch.tensor(figure.axes[0].images[0].get_array().data).float(), net.align(source, target)[0])
    if kind == "transformer":
        assert set(look.draw("heads")) == {"heads_encoder", "heads_cross", "heads_decoder"}
    else:
        with pytest.raises(insight.ConfigError, match="Seq2Seq has no attention"):
            look.draw("heads")
