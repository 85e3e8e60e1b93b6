"""What a run of a translator leaves: pairs, translations beside those of people, and a picture of where it looked."""

from types import SimpleNamespace

import torch

from dlzoo.callbacks.pictures.sentences import RULE, TranslationSamples
from dlzoo.data.pair_batches import PairBatches
from dlzoo.data.sentences import Sentences

LINES = {"de": ["Ein Mann.", "Zwei Hunde!", "Ein Hund."], "en": ["A man.", "Two dogs!", "A dog."]}
SENTENCES = Sentences.train(LINES["de"] + LINES["en"], 270)


def _data():
    return SimpleNamespace(
        source="de",
        target="en",
        sentences=lambda language: SENTENCES,
        lines=lambda split, language: [f"{line} {split}" for line in LINES[language]],
        references=lambda split: [f"{line} {split}" for line in LINES["en"]],
    )


def _outputs(index, source, written):
    rows = [torch.from_numpy(SENTENCES.encode(line))[None] for line in (source, written)]
    return {
        "shown": torch.tensor([index]),
        "source": rows[0],
        "written": rows[1],
        "looks": torch.ones(1, rows[1].shape[1], rows[0].shape[1], dtype=torch.bfloat16) / rows[0].shape[1],
    }


def test_the_first_pairs_are_written_as_tokens(tmp_path):
    rows = [[SENTENCES.encode(line) for line in LINES[language]] for language in ("de", "en")]
    batch = next(iter(PairBatches(*rows, batch_tokens=500)))
    TranslationSamples(tmp_path, "captions", _data(), 32).first(batch)
    lines = (tmp_path / "batch.txt").read_text().splitlines()
    assert lines[0].startswith("captions: ") and lines.count(RULE) == 4
    pairs = {(one, other) for one, other in zip(lines[2::3], lines[3::3], strict=False)}
    assert any(one.endswith("<end>") and other.startswith("<begin>") for one, other in pairs) and len(pairs) == 3


def test_the_last_evaluation_is_shown_in_the_order_of_the_data(tmp_path):
    samples = TranslationSamples(tmp_path, "captions", _data(), 32)
    for written in ("A cat", "A man"):
        samples.clear()
        samples.watch(_outputs(2, "Ein Hund.", f"{written} late"), None)
        samples.watch({}, None)
        samples.watch(_outputs(0, "Ein Mann.", written), None)
        samples.draw("validation")
    text = (tmp_path / "samples.txt").read_text()
    assert "captions, validation: de to en" in text and "cat" not in text
    order = ["Ein Mann. val", "A man\n", "A man. val", "Ein Hund. val", "A man late", "A dog. val"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert (tmp_path / "alignment.png").stat().st_size > 1_000


def test_an_evaluation_without_sentences_leaves_the_files_alone(tmp_path):
    samples = TranslationSamples(tmp_path, "captions", _data(), 32)
    samples.draw("test")
    assert not list(tmp_path.iterdir())
