"""From text to tokens and back: one token a character, or one a frequent sequence of bytes.

A tokenizer is plain data: the characters, or the list of merged pairs. It is kept as JSON with the run that uses it, and
nothing of it is ever executed. Byte pairs are learned and applied by the library `tokenizers`; `teaching_bpe.py` does the
same in a hundred lines of Python.

Source: Sennrich, Haddow, Birch 2016, arXiv 1508.07909 (byte-pair encoding); Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners", section 2.2 (on bytes).
Differs from GPT-2's: the pieces of text within which pairs are merged are told apart by ASCII alone; whatever is not ASCII
counts as a letter. Runs of line ends are pieces of their own, so that a text may be cut after them.

Shapes: N tokens, V vocabulary.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlzoo.errors import ConfigError, DataError

__all__ = ["BYTES", "PATTERN", "BytePairs", "Characters", "Tokenizer", "load_tokenizer"]

# the 256 bytes in the order of GPT-2's vocabulary: those that print, then the others
_PRINT = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = [*_PRINT, *(byte for byte in range(256) if byte not in _PRINT)]
# the character that stands for each byte inside the library
_STANDS_FOR = {byte: chr(byte) if index < len(_PRINT) else chr(256 + index - len(_PRINT)) for index, byte in enumerate(BYTES)}

_LETTER, _SIGN, _SPACE = r"[^\x00-@\[-`{-\x7f]", r"[\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f]", r"[\t\x0b-\r ]"
# words, numbers and signs with the space before them; line ends; other space, but for the last one before a word
PATTERN = rf" ?{_LETTER}+| ?[0-9]+| ?{_SIGN}+|\n+|{_SPACE}+(?![^\t-\r ])|{_SPACE}+"

_CHUNK = 1 << 16  # characters that the library gets at a time, and then up to the next line end
_LINES_END = re.compile(r"\n(?!\n)")
_UNKNOWN = "\ufffd"  # what a character that the vocabulary lacks is decoded as


class Tokenizer(ABC):
    """What every tokenizer does. Its vocabulary is 0 to vocab_size - 1."""

    kind: str

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many different tokens there are."""

    @property
    @abstractmethod
    def characters(self) -> np.ndarray:
        """How many characters of text each token stands for: (V,), int64. Over a whole text they add up to its length."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text: (N,), int64."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """The text of some tokens; what is no whole character becomes U+FFFD."""

    @abstractmethod
    def piece(self, token: int) -> bytes:
        """What one token adds to the UTF-8 of a text; it may be a part of a character."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Plain values that `load_tokenizer` makes it of again."""

    def save(self, path: Path) -> None:
        """Writes it as JSON; the file is there whole or not at all."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self.as_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)


class Characters(Tokenizer):
    """One token a character.

    Args:
        alphabet: the characters, in the order of their tokens.
        unknown: a last token for all other characters; without it, they are an error.

    Raises:
        ValueError: the alphabet is empty, or has a character twice.
    """

    kind = "characters"

    def __init__(self, alphabet: str, unknown: bool = False) -> None:
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise ValueError(f"alphabet must be characters that all differ, got {alphabet!r}")
        self.alphabet, self.unknown = alphabet, unknown
        self._table = np.full(0x110000, len(alphabet) if unknown else -1, dtype=np.int64)
        self._table[_codes(alphabet)] = np.arange(len(alphabet))

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet) + self.unknown

    @property
    def characters(self) -> np.ndarray:
        return np.ones(self.vocab_size, dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text: (N,), int64.

        Raises:
            DataError: a character is not in the alphabet, and there is no token for the unknown.
        """
        tokens = self._table[_codes(text)]
        if len(tokens) and tokens.min() < 0:
            at = int(np.argmin(tokens))
            raise DataError(
                f"the text has {text[at]!r}, which is not among the {len(self.alphabet)} characters of the tokenizer"
            )
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        known = self.alphabet + _UNKNOWN * self.unknown
        return "".join(known[int(token)] for token in tokens)

    def piece(self, token: int) -> bytes:
        return self.decode([token]).encode("utf-8", "replace")

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "alphabet": self.alphabet, "unknown": self.unknown}


class BytePairs(Tokenizer):
    """Tokens that are sequences of bytes: the 256 single ones, then one for each merged pair.

    Args:
        merges: pairs of earlier tokens, in the order in which they are merged. A pair whose bytes are a token already
            adds no other.

    Raises:
        ValueError: a pair names a token that is not there yet.
    """

    kind = "byte_pairs"

    def __init__(self, merges: Sequence[tuple[int, int]] = ()) -> None:
        self.merges = [(int(one), int(other)) for one, other in merges]
        self.pieces = [bytes([byte]) for byte in BYTES]
        known = set(self.pieces)
        for one, other in self.merges:
            if not (0 <= one < len(self.pieces) and 0 <= other < len(self.pieces)):
                raise ValueError(f"a merge must be of two earlier tokens, got {(one, other)} with {len(self.pieces)} tokens")
            piece = self.pieces[one] + self.pieces[other]
            if piece not in known:
                known.add(piece)
                self.pieces.append(piece)
        self._library: Any = None

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BytePairs":
        """Learns the pairs of some texts: the most frequent one is merged, again and again.

        Args:
            texts: of the training split alone.
            vocab_size: how many tokens are wanted. A short text may have fewer pairs than that.

        Raises:
            ValueError: vocab_size is below the 256 bytes.
            ConfigError: the library is not installed.
        """
        if vocab_size < len(BYTES):
            raise ValueError(f"vocab_size must be at least {len(BYTES)}, one for each byte, got {vocab_size}")
        library = _library()
        learner = _assembled(library.models.BPE())
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        learner.train_from_iterator((chunk for text in texts for chunk in _chunks(text)), trainer)
        model = json.loads(learner.to_str())["model"]
        return cls([(model["vocab"][one], model["vocab"][other]) for one, other in model["merges"]])

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @property
    def characters(self) -> np.ndarray:
        # in UTF-8 every character has one byte that is no continuation
        return np.array([sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces], dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        if self._library is None:
            names = ["".join(_STANDS_FOR[byte] for byte in piece) for piece in self.pieces]
            merges = [(names[one], names[other]) for one, other in self.merges]
            vocabulary = {name: index for index, name in enumerate(names)}
            self._library = _assembled(_library().models.BPE(vocab=vocabulary, merges=merges))
        found = self._library.encode_batch_fast(list(_chunks(text)), add_special_tokens=False)
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.array(part.ids, dtype=np.int64) for part in found)])

    def decode(self, tokens: Iterable[int]) -> str:
        return b"".join(self.pieces[int(token)] for token in tokens).decode("utf-8", errors="replace")

    def piece(self, token: int) -> bytes:
        return self.pieces[token]

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "merges": [list(pair) for pair in self.merges]}


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that `save` wrote.

    Raises:
        DataError: the file is missing or is no tokenizer.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = {Characters.kind: Characters, BytePairs.kind: BytePairs}[values.pop("kind")]
        return kind(**values)
    except FileNotFoundError as error:
        raise DataError("there is no tokenizer", where=str(path)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path.name} is no tokenizer that can be read", where=str(path)) from error


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _chunks(text: str) -> Iterator[str]:
    """A long text in parts that end with a line, which no piece of it goes across."""
    start = 0
    while start < len(text):
        match = _LINES_END.search(text, start + _CHUNK)
        end = match.end() if match else len(text)
        yield text[start:end]
        start = end


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            "byte pairs need the package tokenizers",
            where="data.tokenizer",
            fix="pip install 'dlzoo[text]', or data.tokenizer=characters",
        ) from error
    return tokenizers


def _assembled(model: Any) -> Any:
    """A model of the library with the pieces and bytes that it works on."""
    library = _library()
    made, before = library.Tokenizer(model), library.pre_tokenizers
    pieces = before.Split(library.Regex(PATTERN), "isolated")
    made.pre_tokenizer = before.Sequence([pieces, before.ByteLevel(add_prefix_space=False, use_regex=False)])
    return made
