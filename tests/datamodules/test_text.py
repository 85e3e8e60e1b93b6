"""Texts: what is cut where, the tokenizer of the training split alone and of one run, and what is told when it does not fit."""

import json
import random
import string

import numpy as np
import pytest
import torch

from dlzoo.data.token_batches import NOTHING
from dlzoo.data.tokenizers import BytePairs
from dlzoo.datamodules.stdlib import Stdlib
from dlzoo.datamodules.text_files import TextFiles
from dlzoo.datamodules.tiny_shakespeare import TinyShakespeare
from dlzoo.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")


def _prose(length, letters=string.ascii_lowercase, seed=0):
    pick = random.Random(seed)
    words = ("".join(pick.choice(letters) for _ in range(pick.randint(1, 6))) for _ in range(length))
    return "".join(f"{word}\n" if pick.random() < 0.1 else f"{word} " for word in words)[:length]


def _text(data, split):
    return data.tokenizer.decode(getattr(data.splits, split).tolist())


# --- Tiny Shakespeare


@pytest.fixture
def plays(tmp_path, monkeypatch):
    text = _prose(2_000)
    monkeypatch.setattr(TinyShakespeare, "published", len(text))
    (tmp_path / "tiny_shakespeare").mkdir()
    (tmp_path / "tiny_shakespeare" / "input.txt").write_text(text)
    return tmp_path, text


def test_the_last_tenth_tests_and_the_end_of_the_rest_validates(plays):
    root, text = plays
    data = TinyShakespeare(root, vocab_size=28, context=16, val_fraction=0.1)
    assert [_text(data, split) for split in SPLITS] == [text[:1_620], text[1_620:1_800], text[1_800:]]
    assert data.splits.train.dtype == torch.uint8 and data.validates
    whole = TinyShakespeare(root, vocab_size=28, context=16, val_fraction=0)
    assert _text(whole, "train") == text[:1_800] and not whole.validates and whole.val_dataloader() == []
    assert _text(whole, "test") == text[1_800:]


def test_the_loaders_give_windows_of_their_split(plays):
    root, text = plays
    data = TinyShakespeare(root, vocab_size=28, context=16, batch_size=8, eval_batch_size=5, val_fraction=0.1)
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == y.shape == (8, 16) and torch.equal(x[:, 1:], y[:, :-1])
    assert all(data.tokenizer.decode(window.tolist()) in text[:1_620] for window in x)
    for loader, part in ((data.val_dataloader(), text[1_620:1_800]), (data.test_dataloader(), text[1_800:])):
        y = torch.cat([y for _, y in loader]).flatten()
        assert data.tokenizer.decode(y[y != NOTHING].tolist()) == part[1:]
    with pytest.raises(DataError, match="no pictures"):
        data.test_images(3)
    short = TinyShakespeare(root, vocab_size=28, context=16, batch_size=8, epoch_size=24)
    assert len(short.train_dataloader()) == 3


def test_another_text_is_told(plays, monkeypatch, tmp_path):
    root, _ = plays
    monkeypatch.setattr(TinyShakespeare, "published", 2_001)
    with pytest.raises(DataError, match="expected 2,001 characters, found 2,000"):
        TinyShakespeare(root, vocab_size=28).prepare_data()
    with pytest.raises(DataError, match=r"put the file at .*tiny_shakespeare"):
        TinyShakespeare(tmp_path / "nowhere").prepare_data()


def test_the_published_text(data_dir):
    data = TinyShakespeare(data_dir)
    assert [len(getattr(data.splits, split)) for split in SPLITS] == [953_662, 50_192, 111_540]
    assert data.tokenizer.decode([0, 1, 13, 64]) == "\n Az" and _text(data, "train").startswith("First Citizen:\nBefore we")
    assert len(data.train_dataloader()) == 1_241


# --- the tokenizer


def test_the_vocabulary_of_the_config_has_to_be_the_texts(plays):
    root, _ = plays
    with pytest.raises(ConfigError) as caught:
        TinyShakespeare(root, vocab_size=65, run_dir=root).prepare_data()
    assert "28 tokens" in caught.value.what and caught.value.fix == "data.vocab_size=28"
    assert not (root / "tokenizer.json").exists()


@pytest.mark.parametrize("kind", ["characters", "byte_pairs"])
def test_a_run_keeps_its_tokenizer_and_uses_it_again(plays, tmp_path, kind):
    pytest.importorskip("tokenizers")
    root, text = plays
    size = {"characters": 28, "byte_pairs": 300}[kind]
    words = {"tokenizer": kind, "vocab_size": size, "run_dir": tmp_path}
    first = TinyShakespeare(root, **words)
    first.prepare_data()
    assert json.loads((tmp_path / "tokenizer.json").read_text())["kind"] == kind
    assert first.characters.shape == (size,)
    # another text of the same length: the run goes on with what it has
    (root / "tiny_shakespeare" / "input.txt").write_text(text[::-1])
    again = TinyShakespeare(root, **words)
    assert again.tokenizer.as_dict() == first.tokenizer.as_dict()
    assert _text(again, "test") == text[::-1][1_800:]
    assert TinyShakespeare(root, **{**words, "run_dir": tmp_path / "nowhere"}).tokenizer and not (tmp_path / "nowhere").exists()


def test_byte_pairs_are_learned_from_the_training_split_alone(tmp_path):
    pytest.importorskip("tokenizers")
    tails = ("abcabcabc " * 40, "xyzxyzxyz " * 40)
    merges = []
    for tail in tails:
        (tmp_path / "a.txt").write_text(_prose(3_600) + tail)  # 4,000 characters, of which the last tenth is different
        data = TextFiles(tmp_path / "a.txt", vocab_size=320, val_fraction=0.05, test_fraction=0.05, context=8)
        assert _text(data, "val") + _text(data, "test") == tail
        merges.append(data.tokenizer.as_dict())
    assert merges[0] == merges[1]


def test_characters_of_the_training_split_and_one_for_the_others(tmp_path):
    (tmp_path / "a.txt").write_text(_prose(900, "abc") + _prose(100, "xé"))
    data = TextFiles(tmp_path / "a.txt", tokenizer="characters", vocab_size=6, context=8)
    assert data.tokenizer.alphabet == "\n abc" and "\ufffd" in _text(data, "test") and "x" not in _text(data, "test")


# --- files


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "text"
    for number in range(40):
        path = root / ("deep" if number % 2 else ".") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number} " + "word " * 20 + "\n" * (number % 3 > 0))
    (root / ".git").mkdir()
    (root / ".git" / "hidden.txt").write_text("hidden")
    (root / "other.md").write_text("other")
    return root


def _files(data):
    return {split: {text.split()[1] for text in data.texts(split)} for split in SPLITS}


def test_files_are_shared_out_whole_and_a_new_one_moves_no_other(folder):
    words = {"tokenizer": "characters", "vocab_size": 20, "context": 8, "val_fraction": 0.1, "test_fraction": 0.2}
    data = TextFiles(folder, **words)
    found = _files(data)
    assert [len(found[split]) for split in SPLITS] == [28, 4, 8]
    assert set.union(*found.values()) == {str(number) for number in range(40)}
    assert _text(data, "train") == "".join(data.texts("train")) and _text(data, "train").count("\n") >= 28
    (folder / "new.txt").write_text("file new\n")
    after = _files(TextFiles(folder, **words))
    moved = {name for split in SPLITS for name in found[split] - after[split]}
    assert len(moved) <= 2  # those at the edges, which the shares' rounding moves


def test_few_files_are_cut_by_position(tmp_path):
    for name, letter in (("b", "y"), ("a", "x")):
        (tmp_path / f"{name}.txt").write_text(letter * 500)
    data = TextFiles(tmp_path, tokenizer="characters", vocab_size=3, context=8)
    assert [_text(data, split) for split in SPLITS] == ["x" * 500 + "y" * 400, "y" * 50, "y" * 50]


def test_tokens_in_mapped_files_are_the_same(folder, tmp_path):
    pytest.importorskip("tokenizers")
    words = {"vocab_size": 270, "context": 8, "batch_size": 4, "val_fraction": 0.1, "test_fraction": 0.2}
    memory, mapped = TextFiles(folder, **words), TextFiles(folder, **words, token_dir=tmp_path / "tokens")
    assert isinstance(mapped.splits.train, np.memmap)
    for make in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pairs = zip(getattr(memory, make)(), getattr(mapped, make)(), strict=True)
        assert all(torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) for one, other in pairs)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tokens").iterdir()}
    assert len(written) == 4 and sum(name.startswith("tokenizer-") for name in written) == 1
    TextFiles(folder, **words, token_dir=tmp_path / "tokens").prepare_data()
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tokens").iterdir()} == written
    (folder / "1.txt").write_text("another text\n")  # another corpus has files of its own
    TextFiles(folder, **words, token_dir=tmp_path / "tokens").prepare_data()
    assert len(list((tmp_path / "tokens").iterdir())) == 8


def test_byte_pairs_of_a_part_of_the_text_are_kept_beside_the_tokens(folder, tmp_path, monkeypatch):
    """Every run takes the same; how much they were learned from is a part of what they are."""
    pytest.importorskip("tokenizers")
    read, train = [], BytePairs.train
    monkeypatch.setattr(BytePairs, "train", lambda texts, size: train(read.append(list(texts)) or read[-1], size))
    words = {"vocab_size": 258, "context": 8, "val_fraction": 0.1, "test_fraction": 0.2, "token_dir": tmp_path / "tokens"}
    made = [TextFiles(folder, **words, learn_from=count).tokenizer for count in (100, 100, 150)]
    whole = "".join(TextFiles(folder, **words).texts("train"))
    assert ["".join(texts) for texts in read] == [whole[:100], whole[:150]]
    assert made[0].as_dict() == made[1].as_dict()
    with pytest.raises(ValueError, match="learn_from must be at least 1, got 0"):
        TextFiles(folder, **words, learn_from=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda root: TextFiles(root / "nowhere"), "there is no"),
        (lambda root: TextFiles(root, pattern="*.csv"), "holds no"),
        (lambda root: TextFiles(root, pattern="*.bin"), "no text in UTF-8"),
        (
            lambda root: TextFiles(root / "short.md", tokenizer="characters", vocab_size=3, context=64),
            "train split .* 2 tokens",
        ),
    ],
    ids=["nowhere", "nothing", "binary", "short"],
)
def test_what_can_not_be_read_is_told(tmp_path, make, match):
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short.md").write_text("ab")
    with pytest.raises(DataError, match=match):
        make(tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"context": 0}, "context"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"epoch_size": 0}, "epoch_size"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"test_fraction": 0}, "test_fraction"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "test_fraction"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(words, match):
    with pytest.raises(ValueError, match=match):
        TextFiles("nowhere", **words)


# --- the standard library


def test_the_library_is_read_without_what_was_installed_and_the_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(Stdlib, "folder", tmp_path)
    for number in range(60):
        (tmp_path / f"module{number}.py").write_text(f"VALUE = {number}\n")
    for left_out in ("site-packages/torch", "test", "json/tests", "__pycache__"):
        (tmp_path / left_out).mkdir(parents=True)
        (tmp_path / left_out / "a.py").write_text("LEFT OUT\n")
    (tmp_path / "json" / "__init__.py").write_bytes("# -*- coding: latin-1 -*-\nNAME = 'é'\n".encode("latin-1"))
    (tmp_path / "LICENSE.txt").write_text("LEFT OUT")
    data = Stdlib(context=8, val_fraction=0.1, test_fraction=0.1)
    whole = "".join(_text(data, split) for split in SPLITS)
    assert whole.count("VALUE") == 60 and "LEFT OUT" not in whole and "NAME = '\ufffd'" in whole
    assert len(data.files) == 61 and "61 modules" in data.edition and data.tokenizer.vocab_size == 101


def test_the_library_of_this_interpreter_is_a_corpus():
    data = Stdlib()
    names = {path.relative_to(data.root).as_posix() for path in data.files}
    assert {"json/decoder.py", "heapq.py", "asyncio/tasks.py"} <= names and 300 < len(names) < 2_000
    shares = data.shares()
    assert sum(map(len, shares.values())) == len(names) and len(shares["val"]) >= 8 and len(shares["test"]) >= 12
    text = data.text(data.root / "heapq.py")
    assert data.alphabet().decode(data.alphabet().encode(text)).startswith(text[:200])
