"""Sentences as rows of tokens and back; the special tokens are no text."""

import random

import numpy as np
import pytest

from dlzoo.data.sentences import BEGIN, END, PADDING, Sentences
from dlzoo.errors import DataError

LINES = ["Ein Mann schläft.", "Two dogs run; they play!", "Ça va? 山 – ok", "Ein Hund rennt.", "Ein Mann rennt."]


@pytest.fixture(scope="module")
def sentences():
    return Sentences.train(LINES, 290)


def test_a_sentence_comes_back_and_ends(sentences):
    assert sentences.vocab_size == 290
    for line in [*LINES, "never seen: ﬀ 🙂", ""]:
        tokens = sentences.encode(line)
        assert tokens.dtype == np.int64 and tokens[-1] == END and min(tokens) >= END
        assert (tokens[:-1] > END).all() and tokens.max() < sentences.vocab_size
        assert sentences.decode(tokens) == line


def test_what_follows_an_end_and_what_is_no_text_is_passed_over(sentences):
    tokens = sentences.encode("Ein Mann")
    assert sentences.decode([BEGIN, PADDING, *tokens, *sentences.encode("Hund")]) == "Ein Mann"
    assert sentences.decode([END]) == sentences.decode([]) == ""


def test_the_first_word_is_the_token_that_it_is_elsewhere(sentences):
    once = sentences.encode("Mann")[:-1].tolist()
    assert sentences.encode("Ein Mann")[-len(once) - 1 : -1].tolist() == once
    assert sentences.encode("  Ein Mann \n").tolist() == sentences.encode("Ein Mann").tolist()


def test_pieces_are_one_for_each_token_up_to_the_end(sentences):
    tokens = sentences.encode("Ein Manntier")
    pieces = sentences.pieces([BEGIN, *tokens, END, END, PADDING])
    assert len(pieces) == len(tokens) + 1 and pieces[0] == "<begin>" and pieces[-1] == "<end>"
    assert "".join(piece if piece[0] == "-" else f" {piece}" for piece in pieces[1:-1]).replace("-", "") == " Ein Manntier"


def test_it_is_kept(sentences, tmp_path):
    sentences.tokenizer.save(tmp_path / "tokenizer.json")
    again = Sentences.load(tmp_path / "tokenizer.json")
    words = "".join(random.Random(0).choices("abc äöü.", k=60))
    assert again.vocab_size == sentences.vocab_size and again.encode(words).tolist() == sentences.encode(words).tolist()
    with pytest.raises(DataError, match="there is no tokenizer"):
        Sentences.load(tmp_path / "nothing.json")


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="at least 256"):
        Sentences.train(LINES, 258)
