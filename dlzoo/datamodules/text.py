"""Texts as LightningDataModules: read and tokenized once, kept as one long tensor a split or as mapped files."""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from torch import Tensor

from dlzoo.data.token_batches import TokenBatches, compact
from dlzoo.data.token_files import open_tokens, write_tokens
from dlzoo.data.tokenizers import BytePairs, Characters, Tokenizer, load_tokenizer
from dlzoo.datamodules.in_memory import InMemory
from dlzoo.errors import ConfigError, DataError, StorageError

__all__ = ["Kind", "Text", "TextInput", "TextSplits"]

Kind = Literal["characters", "byte_pairs"]
SPLITS = ("train", "val", "test")
TOKENIZER = "tokenizer.json"  # in the run directory

_log = logging.getLogger(__name__)


class TextSplits(NamedTuple):
    """The tokens of each split: (N,)."""

    train: Tensor | np.ndarray
    val: Tensor | np.ndarray
    test: Tensor | np.ndarray
    edition: str = ""  # which text it is, where that depends on the machine


@dataclass(frozen=True)
class TextInput:
    """How a text becomes a network's input, for the summary of a run.

    Args:
        context: tokens of a window.
        vocab_size: how many different tokens there are.
        tokenizer: the file in the run directory that makes them.
    """

    context: int
    vocab_size: int
    tokenizer: str = TOKENIZER

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": "text", **asdict(self)}


class Text(InMemory):
    """What all texts share: their tokenizer, their windows, their loaders. A corpus is a subclass that gives the texts.

    The tokenizer is made of the training split alone, and kept in the run directory; a run that goes on, and whatever is done
    with it later, uses that one. How many tokens it has is a part of the config, because the network is built from it; when
    the text is read it has to be so.

    Args:
        tokenizer: "characters" or "byte_pairs".
        vocab_size: how many tokens there are: of characters, as many as the text has; of byte pairs, as many as are wanted.
        context: tokens of a window.
        batch_size: windows a training batch, over all devices together.
        eval_batch_size: windows a validation or test batch, over all devices together.
        val_fraction: share of the text that validates; 0 validates on nothing.
        epoch_size: windows of a training epoch; None takes the whole text once.
        seed: of the order of the windows.
        run_dir: where the tokenizer is kept; None keeps it nowhere.
        token_dir: a folder for files of tokens, which are then mapped and not read: for corpora larger than memory. They are
            made once, with the tokenizer beside them, and whoever is interrupted goes on. None keeps the tokens in memory.
        learn_from: characters of the training split, from its beginning, that byte pairs are learned from; None takes all.

    Batch:
        x (B, T), y (B, T), int64, one token later; on the training device. In evaluation y is -100 past the end of the text.

    Raises:
        ValueError: context, epoch_size, vocab_size or learn_from is below 1, or val_fraction is not a fraction.
    """

    classes: ClassVar[tuple[str, ...]] = ()  # a text has none

    def __init__(
        self,
        *,
        tokenizer: Kind,
        vocab_size: int,
        context: int,
        batch_size: int,
        eval_batch_size: int,
        val_fraction: float,
        epoch_size: int | None,
        seed: int,
        run_dir: str | Path | None,
        token_dir: str | Path | None = None,
        learn_from: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        for name, value in (
            ("context", context),
            ("epoch_size", 1 if epoch_size is None else epoch_size),
            ("vocab_size", vocab_size),
            ("learn_from", 1 if learn_from is None else learn_from),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
        self.val_fraction = val_fraction
        self.kind, self.vocab_size, self.context, self.epoch_size = tokenizer, vocab_size, context, epoch_size
        self.run_dir = Path(run_dir) if run_dir else None
        self.token_dir = Path(token_dir) if token_dir else None
        self.learn_from = learn_from
        self._tokenizer: Tokenizer | None = None

    @abstractmethod
    def texts(self, split: str) -> Iterator[str]:
        """The texts of "train", "val" or "test", one after the other; each ends with a line."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Another one for each other text, or cut of it: a file of tokens is used again only for the same."""

    def count(self, split: str) -> int | None:
        """How many texts `texts` gives, where that is known."""
        return None

    @property
    def described(self) -> str:
        """Which text it is, where that depends on the machine."""
        return ""

    def alphabet(self) -> Characters:
        """The tokenizer of characters: those of the training split, and one for all others."""
        found = sorted(set().union(*map(set, self.texts("train"))))
        return Characters("".join(found), unknown=True)

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's, where it has one; otherwise it is made of the training split, and kept with the run."""
        if self._tokenizer is None:
            path = self.run_dir / TOKENIZER if self.run_dir else None
            kept = path is not None and path.is_file()
            made = load_tokenizer(path) if kept else self._shared() if self.token_dir else self._made()
            if made.vocab_size != self.vocab_size:
                raise ConfigError(
                    f"the tokenizer has {made.vocab_size} tokens, and the network is to be built for {self.vocab_size}",
                    where="data.vocab_size",
                    fix=f"data.vocab_size={made.vocab_size}",
                )
            if path is not None and not kept and path.parent.is_dir():
                made.save(path)
            self._tokenizer = made
        return self._tokenizer

    def _made(self) -> Tokenizer:
        """The tokenizer of the training split."""
        if self.kind == "characters":
            return self.alphabet()
        _log.info(
            "learning %s byte pairs from %s",
            f"{self.vocab_size:,}",
            "the training split" if self.learn_from is None else "a part of it",
        )
        return BytePairs.train(_first(self.texts("train"), self.learn_from), self.vocab_size)

    def _shared(self) -> Tokenizer:
        """The one that lies beside the files of tokens, for all runs; made where there is none."""
        made_by = repr((self.fingerprint, self.kind, self.vocab_size, self.learn_from)).encode()
        path = self.token_dir / f"tokenizer-{hashlib.sha256(made_by).hexdigest()[:16]}.json"
        if path.is_file():
            return load_tokenizer(path)
        made = self._made()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.save(path)
        except OSError as error:
            raise StorageError(f"{path.name} could not be written: {error.strerror}", where=str(path.parent)) from error
        return made

    @property
    def characters(self) -> np.ndarray:
        """How many characters of text each token stands for: (V,)."""
        return self.tokenizer.characters

    @property
    def preprocess(self) -> TextInput:
        return TextInput(self.context, self.vocab_size)

    @property
    def validates(self) -> bool:
        """Whether there is text to validate on."""
        return self.val_fraction > 0

    def read(self) -> TextSplits:
        encode = self.tokenizer.encode
        if self.token_dir is None:
            none = np.zeros(0, dtype=np.int64)
            whole = (np.concatenate([none, *map(encode, self.texts(split))]) for split in SPLITS)
            return TextSplits(*(compact(tokens, self.vocab_size) for tokens in whole), edition=self.described)
        made_by = repr((self.fingerprint, self.tokenizer.as_dict())).encode()
        key = hashlib.sha256(made_by).hexdigest()[:16]
        paths = [self.token_dir / f"{split}-{key}.tokens" for split in SPLITS]
        for split, path in zip(SPLITS, paths, strict=True):
            if not path.is_file():
                write_tokens(path, self.texts(split), self.vocab_size, encode, self.count(split))
        return TextSplits(*(open_tokens(path, self.vocab_size) for path in paths), edition=self.described)

    def check(self, splits: TextSplits) -> None:
        needed = {"train": self.context + 1, "val": 2 if self.validates else 0, "test": 2}
        for split, least in needed.items():
            if (count := len(getattr(splits, split))) < least:
                raise DataError(
                    f"the {split} split of {type(self).__name__} has {count} tokens, and {least} are needed",
                    where="data.context",
                    fix="more text, or a smaller data.context",
                )

    def test_images(self, count: int) -> Any:
        """What draws pictures of inputs asks for some; a text has none.

        Raises:
            DataError: always.
        """
        raise DataError("a text has no pictures to look at", where=type(self).__name__)

    def train_dataloader(self) -> TokenBatches:
        return TokenBatches(
            self.splits.train,
            context=self.context,
            batch_size=self.batch_size,
            epoch_size=self.epoch_size,
            seed=self.seed,
            **self.placed(),
            **self.training(),
        )

    def val_dataloader(self) -> Any:
        return self._evaluated(self.splits.val) if self.validates else []

    def test_dataloader(self) -> TokenBatches:
        return self._evaluated(self.splits.test)

    def _evaluated(self, tokens: Tensor | np.ndarray) -> TokenBatches:
        return TokenBatches(tokens, context=self.context, batch_size=self.eval_batch_size, **self.placed())


def _first(texts: Iterator[str], characters: int | None) -> Iterator[str]:
    """Texts until so many characters are reached; the last of them is cut."""
    for text in texts:
        if characters is None:
            yield text
            continue
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return
