"""Byte-pair encoding in plain Python, for reading: it learns the pairs and gives the tokens that the library `tokenizers` does.

A text is bytes. Find the pair of neighbours that occurs most often, give it a number of its own, write that number wherever
the pair stands, and begin again: what is frequent becomes short. To encode another text, the pairs are merged in the order in
which they were learned.

A text is cut into pieces first (a word with the space before it, a number, some signs), and no pair reaches across: "dog." and
"dog!" share the token of "dog". A corpus has few different pieces, so they are counted once, and the counting of pairs goes
over those.

Source: Sennrich, Haddow, Birch 2016, arXiv 1508.07909, algorithm 1; on bytes as in GPT-2.
Differs from it: pairs that are equally frequent are taken in the order of their numbers, as the library does it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from dlzoo.data.tokenizers import BYTES, PATTERN

__all__ = ["decode", "encode", "train", "vocabulary"]

Pair = tuple[int, int]
FIRST = {byte: number for number, byte in enumerate(BYTES)}  # the number of each single byte


def train(text: str, vocab_size: int) -> list[Pair]:
    """Learns which pairs to merge.

    Args:
        text: the corpus.
        vocab_size: how many tokens there shall be, the 256 bytes among them.

    Returns:
        the pairs in the order in which they were found; fewer where every piece of the text is one token before that.
    """
    words = [(_first(piece), count) for piece, count in Counter(re.findall(PATTERN, text)).items()]
    merges: list[Pair] = []
    tokens = vocabulary(merges)
    while len(tokens) < vocab_size:
        pairs: Counter[Pair] = Counter()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens = vocabulary(merges)
        number = tokens.index(tokens[best[0]] + tokens[best[1]])
        words = [(_merged(word, best, number), count) for word, count in words]
    return merges


def vocabulary(merges: Sequence[Pair]) -> list[bytes]:
    """The bytes of each token. Two ways to the same bytes are one token."""
    tokens = {bytes([byte]): None for byte in BYTES}  # a dict is a set that keeps its order
    known = list(tokens)
    for one, other in merges:
        piece = known[one] + known[other]
        if piece not in tokens:
            tokens[piece] = None
            known.append(piece)
    return known


def encode(text: str, merges: Sequence[Pair]) -> list[int]:
    """The tokens of a text."""
    tokens = vocabulary(merges)
    number = {piece: index for index, piece in enumerate(tokens)}
    learned = {pair: (order, number[tokens[pair[0]] + tokens[pair[1]]]) for order, pair in enumerate(merges)}
    found: list[int] = []
    for piece in re.findall(PATTERN, text):
        word = _first(piece)
        # of the pairs that stand here, the one that was learned first, until none is left that was
        while known := [pair for pair in pairwise(word) if pair in learned]:
            earliest = min(known, key=lambda pair: learned[pair])
            word = _merged(word, earliest, learned[earliest][1])
        found += word
    return found


def decode(tokens: Iterable[int], merges: Sequence[Pair]) -> str:
    """The text of some tokens."""
    known = vocabulary(merges)
    return b"".join(known[token] for token in tokens).decode("utf-8", errors="replace")


def _first(piece: str) -> list[int]:
    """A piece of text before anything is merged: one number a byte."""
    return [FIRST[byte] for byte in piece.encode("utf-8")]


def _merged(word: list[int], pair: Pair, number: int) -> list[int]:
    """The word with `number` wherever the pair stood, from left to right: of three equal ones the first two."""
    merged, at = [], 0
    while at < len(word):
        here = tuple(word[at : at + 2]) == pair
        merged.append(number if here else word[at])
        at += 2 if here else 1
    return merged
