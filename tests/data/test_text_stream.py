"""Tokens come one by one; the text is the whole one, cut before the first stop string, wherever the tokens' borders fall."""

import random

import pytest

from dlzoo.data.text_stream import TextStream
from dlzoo.data.tokenizers import BYTES, BytePairs, Characters

AT = {byte: token for token, byte in enumerate(BYTES)}


def byte_tokens(text: str) -> list[int]:
    return [AT[byte] for byte in text.encode()]


def test_half_a_character_waits_for_the_other_half():
    stream = TextStream(BytePairs())
    given = [stream.add(token) for token in byte_tokens("é€😀a")]
    assert given == ["", "é", "", "", "€", "", "", "", "😀", "a"] and stream.end() == "" and stream.text == "é€😀a"


def test_half_a_character_at_the_end_is_told():
    stream = TextStream(BytePairs())
    given = [stream.add(token) for token in byte_tokens("a€")[:-1]]
    assert "".join(given) == "a" and stream.end() == "\ufffd" and stream.text == "a\ufffd"


def test_bytes_that_are_no_text_do_as_when_decoded_at_once():
    numbers = random.Random(0)
    for _ in range(200):
        tokens = [AT[numbers.choice([65, 0xC3, 0xA9, 0xE2, 0x82, 0xF0, 0x9F])] for _ in range(8)]
        stream = TextStream(BytePairs())
        given = "".join(stream.add(token) for token in tokens) + stream.end()
        assert given == BytePairs().decode(tokens)


def test_a_stop_string_across_tokens_is_never_seen():
    letters = Characters("abcdef\n")
    stream = TextStream(letters, ["\n\n", "cab"])
    given = [stream.add(int(token)) for token in letters.encode("ab\na\n\nabc")]
    assert (
        given == ["a", "b", "", "\na", "", "", "", "", ""] and stream.stopped and stream.text == "ab\na" and stream.end() == ""
    )


def test_what_only_looked_like_a_stop_string_is_given_in_the_end():
    letters = Characters("abc")
    stream = TextStream(letters, ["abc"])
    assert [stream.add(int(token)) for token in letters.encode("aab")] == ["", "a", ""]
    assert stream.end() == "ab" and not stream.stopped and stream.text == "aab"


def test_the_first_that_is_complete_counts_in_one_token_too():
    """A merged token that holds both; the longer one where two end at once."""
    pairs = BytePairs([(AT[97], AT[98]), (256, AT[99]), (257, AT[100])])
    assert pairs.pieces[258] == b"abcd"
    for stops, text in ((["bc", "abcd"], "a"), (["d", "bc"], "a"), (["c", "bc"], "a"), (["abcd"], "")):
        stream = TextStream(pairs, stops)
        assert stream.add(258) == text and stream.stopped


@pytest.mark.parametrize("seed", range(5))
def test_against_a_search_in_the_whole_text(seed):
    numbers = random.Random(seed)
    letters = Characters("ab")
    for _ in range(100):
        text = "".join(numbers.choice("ab") for _ in range(12))
        stops = ["".join(numbers.choice("ab") for _ in range(numbers.randint(2, 5))) for _ in range(2)]
        ends = [(text.index(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
        expected = text[: min(ends)[0] + min(ends)[1]] if ends else text
        stream = TextStream(letters, stops)
        given = "".join(stream.add(int(token)) for token in letters.encode(text)) + stream.end()
        assert given == stream.text == expected and stream.stopped == bool(ends)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="stops must be strings that are not empty"):
        TextStream(BytePairs(), ["a", ""])
