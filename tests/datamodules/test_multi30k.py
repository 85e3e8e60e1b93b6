"""Multi30k: which files, what learns the tokenizers, what tests; and what is told when something is missing."""

import gzip

import numpy as np
import pytest

from dlzoo.data.sentences import END, Sentences
from dlzoo.datamodules import multi30k
from dlzoo.datamodules.multi30k import Multi30k
from dlzoo.errors import ConfigError, DataError

SIZE, COUNTS = 300, {"train": 60, "val": 12, "test": 10}


def write(folder, language, split, packed=True):
    """Sentences of which each has its number, its split and its language in it."""
    words = {"de": "Ein Mann liest Zeile", "en": "A man reads line", "fr": "Un homme lit la ligne"}[language]
    lines = [f"{words} {number} {split}{' ja' * (number % 7)}." for number in range(COUNTS[split])]
    name = f"{multi30k.FILES[split]}.{language}"
    content = ("\n".join(lines) + "\n").encode()
    (folder / "multi30k").mkdir(exist_ok=True)
    (folder / "multi30k" / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    return lines


@pytest.fixture
def captions(tmp_path, monkeypatch):
    monkeypatch.setattr(Multi30k, "published", COUNTS)
    return {(split, each): write(tmp_path, each, split, each != "fr") for split in COUNTS for each in ("de", "en", "fr")}


def made(folder, **options):
    return Multi30k(folder, **{"source_vocab_size": SIZE, "target_vocab_size": SIZE, "batch_tokens": 400, **options})


@pytest.mark.parametrize(("source", "target"), [("de", "en"), ("en", "fr"), ("fr", "de")])
def test_each_loader_gives_the_pairs_of_its_split(tmp_path, captions, source, target):
    data = made(tmp_path, source=source, target=target)
    data.setup()
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader()), ("test", data.test_dataloader())):
        seen = []
        for batch in loader:
            for at, reads, writes in zip(batch.index.tolist(), batch.source, batch.target, strict=True):
                assert data.sentences(source).decode(reads.tolist()) == captions[split, source][at]
                assert data.sentences(target).decode(writes.tolist()) == captions[split, target][at]
                seen.append(at)
        assert sorted(seen) == list(range(COUNTS[split]))
        assert data.references(split) == captions[split, target]


def test_the_test_split_teaches_the_tokenizer_nothing(tmp_path, captions):
    before = made(tmp_path).sentences("de").tokenizer.merges
    for split in ("val", "test"):
        for language in ("de", "en"):
            path = tmp_path / "multi30k" / f"{multi30k.FILES[split]}.{language}.gz"
            path.write_bytes(gzip.compress(b"Quark Quark Quark Quark\n" * COUNTS[split]))
    assert made(tmp_path).sentences("de").tokenizer.merges == before


def test_one_vocabulary_for_both_or_one_each(tmp_path, captions):
    joint = made(tmp_path)
    assert joint.sentences("de") is joint.sentences("en")
    each = made(tmp_path, joint=False, target_vocab_size=290)
    assert (each.sentences("de").vocab_size, each.sentences("en").vocab_size) == (SIZE, 290)
    assert each.sentences("de").tokenizer.merges != each.sentences("en").tokenizer.merges
    with pytest.raises(ValueError, match="a joint vocabulary has one size, got 300 and 290"):
        made(tmp_path, target_vocab_size=290)
    with pytest.raises(ValueError, match="must be two languages, got de twice"):
        made(tmp_path, target="de")


@pytest.mark.parametrize("joint", [True, False])
def test_the_tokenizers_are_kept_in_the_run_and_used_again(tmp_path, captions, joint):
    run = tmp_path / "run"
    run.mkdir()
    first = made(tmp_path, run_dir=run, joint=joint)
    first.setup()
    facts = first.preprocess.as_dict()
    assert facts["kind"] == "sentences" and (facts["source"], facts["target"]) == ("de", "en")
    assert facts["longest"] == max(map(len, first.splits.train[0]))
    files = {facts["source_tokenizer"], facts["target_tokenizer"]}
    assert len(files) == 2 - joint and {path.name for path in run.iterdir()} == files
    other = Sentences.train(["ganz andere Worte als zuvor"] * 3, 280)
    other.tokenizer.save(run / facts["source_tokenizer"])
    again = made(tmp_path, run_dir=run, joint=joint)
    with pytest.raises(ConfigError, match=r"the tokenizer has 2.. tokens, and the network is to be built for 300") as caught:
        again.sentences("de")
    assert "data.source_vocab_size=2" in caught.value.fix


def test_a_text_with_fewer_pairs_than_wanted_says_how_many_there_are(tmp_path, captions):
    with pytest.raises(ConfigError, match="the network is to be built for 5000") as caught:
        made(tmp_path, source_vocab_size=5_000, target_vocab_size=5_000).setup()
    assert caught.value.exit_code == 2


def test_files_that_are_missing_or_others_are_named(tmp_path, captions):
    path = tmp_path / "multi30k" / "val.en.gz"
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(b"one line\n"))
    with pytest.raises(DataError, match="the val split has 12 sentences, found 12 and 1"):
        made(tmp_path).setup()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"val\.en\.gz can not be read"):
        made(tmp_path).setup()
    path.unlink()
    with pytest.raises(DataError, match=r"val\.en\.gz is missing, and DLZOO_OFFLINE forbids downloads") as caught:
        made(tmp_path).setup()
    assert "https://raw.githubusercontent.com/multi30k/dataset" in caught.value.fix and str(path) in caught.value.fix


def test_a_sentence_may_hold_other_breaks_of_lines(tmp_path, captions):
    path = tmp_path / "multi30k" / "train.de.gz"
    lines = [*captions["train", "de"]]
    lines[3] = "Zwei\u2028Zeilen\x0b, eine Zeile"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    assert made(tmp_path).lines("train", "de") == lines


@pytest.mark.slow
def test_the_published_files(data_dir):
    data = Multi30k(data_dir, source_vocab_size=1_000, target_vocab_size=1_000)
    data.setup()
    assert [len(part) for split in data.splits for part in split] == [29_000] * 2 + [1_014] * 2 + [1_000] * 2
    assert all(row[-1] == END and np.count_nonzero(row == END) == 1 for row in data.splits.train[0])
    assert data.references("test")[0] == "A man in an orange hat starring at something."
    for split in ("val", "test"):
        for language in ("de", "en"):
            lines = data.lines(split, language)
            decoded = [data.sentences(language).decode(data.sentences(language).encode(line)) for line in lines]
            assert decoded == [line.strip() for line in lines]
    batches = list(data.train_dataloader())
    rows = [rows for batch in batches for rows in (batch.source, batch.target)]
    assert sum((each == 0).sum() for each in rows) / sum(each.numel() for each in rows) < 0.05
