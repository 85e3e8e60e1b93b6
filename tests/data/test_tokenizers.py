"""Tokenizers: text there and back, byte pairs of two makers, and files that are data."""

import json
import random
import re
import string

import numpy as np
import pytest

from dlzoo.data import teaching_bpe, tokenizers
from dlzoo.data.tokenizers import BYTES, PATTERN, BytePairs, Characters, load_tokenizer
from dlzoo.errors import ConfigError, DataError

TEXT = """First Citizen:
Before we proceed any further, hear me speak.

All:   Speak, speak!  We are 1,234 -- and more;\tnaïve café, Ünïcödé, 東京, 👩‍🚀.


    def _speak(self, *words):  # as 12.5e3
        return [word for word in words if not word.startswith("__")]
\r\n\x0b\x0c trailing   \n"""
CORPUS = TEXT + "the theme of the other thesis, there and then; aaaa aaaaa abababab\n" * 5


def _garbage(seed, length=400):
    pick = random.Random(seed)
    return "".join(pick.choice(string.printable + "éß東👩‍🚀\x00\x85\u2028\xa0\u0301") for _ in range(length))


TEXTS = {
    "prose": TEXT,
    "corpus": CORPUS,
    "empty": "",
    "spaces": "   \n \n\n  a  \n",
    "garbage": _garbage(1),
    "more": _garbage(2),
}


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("tokenizers")


# --- characters


def test_a_character_is_a_token():
    tokenizer = Characters("abc é")
    tokens = tokenizer.encode("cab é")
    assert tokens.tolist() == [2, 0, 1, 3, 4] and tokens.dtype == np.int64
    assert tokenizer.decode(tokens) == "cab é" and tokenizer.vocab_size == 5
    assert tokenizer.characters.tolist() == [1] * 5
    assert tokenizer.encode("").shape == (0,)


def test_what_the_alphabet_lacks_is_told_or_is_the_last_token():
    with pytest.raises(DataError, match="'x'"):
        Characters("abc").encode("abx")
    tokenizer = Characters("abc", unknown=True)
    assert tokenizer.encode("ax東").tolist() == [0, 3, 3] and tokenizer.vocab_size == 4
    assert tokenizer.decode([0, 3]) == "a\ufffd"


@pytest.mark.parametrize("alphabet", ["", "aba"], ids=["empty", "twice"])
def test_an_alphabet_has_each_character_once(alphabet):
    with pytest.raises(ValueError, match="alphabet"):
        Characters(alphabet)


# --- byte pairs


def test_the_pieces_of_a_text_are_all_of_it():
    assert sorted(BYTES) == list(range(256))
    for text in TEXTS.values():
        assert "".join(re.findall(PATTERN, text)) == text
    assert re.findall(PATTERN, "we'll go  in 10 days!\n\n  ok") == [
        *("we", "'", "ll", " go", " ", " in", " 10", " days", "!", "\n\n", " ", " ok")
    ]


@pytest.mark.parametrize("vocab_size", [256, 280, 400])
def test_the_teaching_form_learns_and_encodes_as_the_library(library, vocab_size):
    merges = teaching_bpe.train(CORPUS, vocab_size)
    tokenizer = BytePairs.train([CORPUS], vocab_size)
    assert tokenizer.merges == merges and tokenizer.vocab_size <= vocab_size
    assert tokenizer.pieces == teaching_bpe.vocabulary(merges)
    assert len(merges) >= vocab_size - 256 or vocab_size == 400  # all pieces of this text are tokens before
    for text in TEXTS.values():
        tokens = tokenizer.encode(text)
        assert tokens.tolist() == teaching_bpe.encode(text, merges)
        assert tokenizer.decode(tokens) == text == teaching_bpe.decode(tokens, merges)


def test_the_most_frequent_pair_is_merged_first():
    # "ab" stands four times, "bc" three, and of equals the smaller numbers win
    assert teaching_bpe.train("abc abc abc ab", 257) == [(BYTES.index(ord("a")), BYTES.index(ord("b")))]
    assert teaching_bpe.train("zy\nxw\n", 257) == [(BYTES.index(ord("x")), BYTES.index(ord("w")))]
    assert teaching_bpe.train("a\nb\n", 300) == []


def test_two_ways_to_the_same_bytes_are_one_token():
    a, b, c = (BYTES.index(ord(letter)) for letter in "abc")
    merges = [(a, b), (b, c), (256, c), (a, 257)]  # ab, bc, abc, and abc again
    assert BytePairs(merges).vocab_size == 259 == len(teaching_bpe.vocabulary(merges))


@pytest.mark.parametrize("name", TEXTS)
def test_characters_add_up_to_the_text(library, name):
    tokenizer = BytePairs.train([CORPUS], 300)
    assert tokenizer.characters[tokenizer.encode(TEXTS[name])].sum() == len(TEXTS[name])


def test_a_long_text_is_the_same_in_parts(library, monkeypatch):
    tokenizer = BytePairs.train([CORPUS], 300)
    whole = tokenizer.encode(CORPUS)
    assert len(whole) < 0.75 * len(CORPUS.encode())
    for size in (1, 7, 100):
        monkeypatch.setattr(tokenizers, "_CHUNK", size)
        parts = list(tokenizers._chunks(CORPUS))
        assert len(parts) >= 5 and "".join(parts) == CORPUS
        assert tokenizer.encode(CORPUS).tolist() == whole.tolist()
        assert BytePairs.train([CORPUS], 300).merges == tokenizer.merges


def test_a_vocabulary_holds_every_byte(library):
    with pytest.raises(ValueError, match="at least 256"):
        BytePairs.train([TEXT], 255)
    with pytest.raises(ValueError, match="two earlier tokens"):
        BytePairs([(0, 256)])


def test_without_the_library_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"dlzoo\[text\]"):
        BytePairs().encode("a")


# --- files


@pytest.mark.parametrize("kind", ["characters", "unknown", "byte_pairs"])
def test_a_tokenizer_comes_back_from_its_file(library, tmp_path, kind):
    made = {
        "characters": lambda: Characters("".join(sorted(set(TEXT)))),
        "unknown": lambda: Characters(string.printable, unknown=True),
        "byte_pairs": lambda: BytePairs.train([CORPUS], 300),
    }[kind]()
    made.save(tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    other = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(other) is type(made) and other.as_dict() == made.as_dict()
    assert other.encode(TEXT).tolist() == made.encode(TEXT).tolist() and other.vocab_size == made.vocab_size


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"kind": "pickle"}',
        '{"kind": "characters"}',
        '{"kind": "byte_pairs", "merges": [[0, 999]]}',
        '{"alphabet": "a"}',
    ],
    ids=["empty", "list", "kind", "no alphabet", "merge", "no kind"],
)
def test_a_file_that_is_no_tokenizer_is_told(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="no tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="no tokenizer"):
        load_tokenizer(tmp_path / "nowhere.json")


def test_what_is_kept_is_plain(library):
    assert json.loads(json.dumps(BytePairs.train([CORPUS], 260).as_dict()))["kind"] == "byte_pairs"
    assert all(isinstance(number, int) for pair in BytePairs.train([CORPUS], 260).as_dict()["merges"] for number in pair)
