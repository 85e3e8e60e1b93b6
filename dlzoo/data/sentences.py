"""From a sentence to a row of tokens and back, for networks that translate: what pads, what begins, what ends.

A tokenizer knows text alone. Here its tokens move up by three, and below them stand the three that are no text.

Shapes: N tokens, V vocabulary.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dlzoo.data.tokenizers import BytePairs, Tokenizer, load_tokenizer

__all__ = ["BEGIN", "END", "PADDING", "Sentences"]

PADDING, BEGIN, END = 0, 1, 2
SPECIALS = 3
NAMES = ("<padding>", "<begin>", "<end>")


class Sentences:
    """A tokenizer for sentences of one language, or of two.

    Each is tokenized with a space before it, so that its first word is the same token as elsewhere.

    Args:
        tokenizer: of the text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def train(cls, sentences: Iterable[str], vocab_size: int) -> "Sentences":
        """Learns the byte pairs of some sentences.

        Args:
            sentences: of the training split alone.
            vocab_size: how many tokens are wanted, the three special ones among them.

        Raises:
            ValueError: vocab_size is below 259: a token for each byte, and three.
        """
        return cls(BytePairs.train((f" {sentence.strip()}\n" for sentence in sentences), vocab_size - SPECIALS))

    @classmethod
    def load(cls, path: Path) -> "Sentences":
        """Those whose tokenizer was kept in a file.

        Raises:
            DataError: the file is missing or is no tokenizer.
        """
        return cls(load_tokenizer(path))

    @property
    def vocab_size(self) -> int:
        """V, special tokens included."""
        return self.tokenizer.vocab_size + SPECIALS

    def encode(self, sentence: str) -> np.ndarray:
        """The tokens of a sentence and the end: (N,), int64."""
        return np.append(self.tokenizer.encode(f" {sentence.strip()}") + SPECIALS, END)

    def decode(self, tokens: Iterable[int]) -> str:
        """The sentence up to its first end token; other special tokens are passed over."""
        kept = []
        for token in map(int, tokens):
            if token == END:
                break
            if token >= SPECIALS:
                kept.append(token - SPECIALS)
        return self.tokenizer.decode(kept).strip()

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Each token up to the first end, and that, as it is read best: what goes on with a word begins with a hyphen."""
        found = []
        for token in map(int, tokens):
            if token == PADDING:
                continue
            text = f" {NAMES[token]}" if token < SPECIALS else self.tokenizer.decode([token - SPECIALS])
            found.append(f"-{text}" if text[0].isalnum() else text.strip())
            if token == END:
                break
        return found
