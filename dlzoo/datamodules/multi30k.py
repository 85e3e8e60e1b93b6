"""Multi30k: 31,014 captions of photographs in English, with German and French translations."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from dlzoo.data.download import fetch
from dlzoo.data.pair_batches import PairBatches
from dlzoo.data.sentences import Sentences
from dlzoo.datamodules.in_memory import InMemory
from dlzoo.errors import ConfigError, DataError

__all__ = ["Multi30k", "PairInput", "PairSplits"]

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
SHA256 = {
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
}


@dataclass(frozen=True)
class PairInput:
    """How a sentence becomes a network's input, and its output a sentence, for the summary of a run.

    Args:
        source: the language that is read.
        target: the one that is written.
        source_tokenizer: the file in the run directory that makes the tokens of the one.
        target_tokenizer: and of the other; the same where they share one.
        longest: tokens of the longest source sentence that the network is trained on.
    """

    source: str
    target: str
    source_tokenizer: str
    target_tokenizer: str
    longest: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": "sentences", **asdict(self)}


class PairSplits(NamedTuple):
    """Of each split the source rows and the target rows, tokens with their end."""

    train: tuple[list[np.ndarray], list[np.ndarray]]
    val: tuple[list[np.ndarray], list[np.ndarray]]
    test: tuple[list[np.ndarray], list[np.ndarray]]


class Multi30k(InMemory):
    """29,000 pairs train, 1,014 validate, and the 1,000 of Flickr 2016 test: the published splits, raw text as it is.

    The byte pairs are learned from the training split alone, of both languages together or of each by itself, and kept in the
    run directory; a run that goes on uses those. Found in data_dir/multi30k, packed or not; otherwise downloaded.

    Source: Elliott, Frank, Sima'an, Specia 2016, https://arxiv.org/abs/1605.00459; https://github.com/multi30k/dataset, task 1.

    Args:
        data_dir: where the data sets lie.
        source: the language to read.
        target: the language to write.
        joint: one vocabulary for both, so that a network may share its tables; otherwise one each.
        source_vocab_size: how many tokens the source has, three special ones among them.
        target_vocab_size: likewise; with `joint` the same number.
        batch_tokens: the most tokens of a training batch, of both languages, with what fills up, over all devices together.
        batch_size: the most pairs of a training batch; None sets no limit besides.
        eval_batch_tokens: the most tokens of a validation or test batch.
        bucket: sentences whose lengths differ by less than this may come together in any way.
        seed: of the order.
        run_dir: where the tokenizers are kept; None keeps them nowhere.

    Batch:
        `PairBatch`: source (B, S), target (B, T + 1), predicted (), index (B,), int64; on the training device.

    Raises:
        ValueError: source and target are the same, or `joint` with two sizes.
    """

    classes: ClassVar[tuple[str, ...]] = ()  # sentences have none
    published: ClassVar[dict[str, int]] = {"train": 29_000, "val": 1_014, "test": 1_000}
    validates = True

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        source: Literal["en", "de", "fr"] = "de",
        target: Literal["en", "de", "fr"] = "en",
        joint: bool = True,
        source_vocab_size: int = 8_000,
        target_vocab_size: int = 8_000,
        batch_tokens: int = 4_096,
        batch_size: int | None = None,
        eval_batch_tokens: int = 8_192,
        bucket: int = 2,
        seed: int = 0,
        run_dir: str | Path | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=None, seed=seed)
        if source == target:
            raise ValueError(f"source and target must be two languages, got {source} twice")
        if joint and source_vocab_size != target_vocab_size:
            raise ValueError(f"a joint vocabulary has one size, got {source_vocab_size} and {target_vocab_size}")
        self.batch_tokens, self.eval_batch_tokens = batch_tokens, eval_batch_tokens
        self.folder = Path(data_dir) / "multi30k"
        self.source, self.target, self.joint, self.bucket = source, target, joint, bucket
        self.sizes = {source: source_vocab_size, target: target_vocab_size}
        self.run_dir = Path(run_dir) if run_dir else None
        self._lines: dict[tuple[str, str], list[str]] = {}
        self._sentences: dict[str, Sentences] = {}

    def lines(self, split: str, language: str) -> list[str]:
        """The sentences of "train", "val" or "test" in one language, as they are published."""
        if (split, language) not in self._lines:
            self._lines[split, language] = self._read(split, language)
        return self._lines[split, language]

    def references(self, split: str) -> list[str]:
        """What the translations of a split are measured against, in the order of `PairBatch.index`."""
        return self.lines(split, self.target)

    def sentences(self, language: str) -> Sentences:
        """The tokens of a language: the run's, where it has some; otherwise learned from the training split, and kept."""
        if language not in self._sentences:
            path = self.run_dir / self._tokenizer(language) if self.run_dir else None
            kept = path is not None and path.is_file()
            if kept:
                made = Sentences.load(path)
            else:
                learned = (self.source, self.target) if self.joint else (language,)
                made = Sentences.train([line for each in learned for line in self.lines("train", each)], self.sizes[language])
            if made.vocab_size != self.sizes[language]:
                raise ConfigError(
                    f"the tokenizer has {made.vocab_size} tokens, and the network is to be built for {self.sizes[language]}",
                    where="data.source_vocab_size" if language == self.source else "data.target_vocab_size",
                    fix=f"data.source_vocab_size={made.vocab_size} data.target_vocab_size={made.vocab_size}",
                )
            if path is not None and not kept and path.parent.is_dir():
                made.tokenizer.save(path)
            for each in (self.source, self.target) if self.joint else (language,):
                self._sentences[each] = made
        return self._sentences[language]

    @property
    def preprocess(self) -> PairInput:
        files = self._tokenizer(self.source), self._tokenizer(self.target)
        return PairInput(self.source, self.target, *files, longest=max(map(len, self.splits.train[0])))

    def read(self) -> PairSplits:
        def rows(split: str, language: str) -> list[np.ndarray]:
            encode = self.sentences(language).encode
            return [encode(line) for line in self.lines(split, language)]

        return PairSplits(*((rows(split, self.source), rows(split, self.target)) for split in FILES))

    def check(self, splits: PairSplits) -> None:
        for split, count in self.published.items():
            found = tuple(map(len, getattr(splits, split)))
            if found != (count, count):
                raise self.unlike(f"the {split} split has {count:,} sentences, found {found[0]:,} and {found[1]:,}.")

    def test_images(self, count: int) -> Any:
        """What draws pictures of inputs asks for some; sentences have none.

        Raises:
            DataError: always.
        """
        raise DataError("sentences have no pictures to look at", where=type(self).__name__)

    def train_dataloader(self) -> PairBatches:
        limits = {"batch_tokens": self.batch_tokens, "batch_size": self.batch_size}
        shuffle = bool(self.training()["shuffle"])
        return PairBatches(*self.splits.train, **limits, shuffle=shuffle, bucket=self.bucket, seed=self.seed, **self.placed())

    def val_dataloader(self) -> PairBatches:
        return PairBatches(*self.splits.val, batch_tokens=self.eval_batch_tokens, **self.placed())

    def test_dataloader(self) -> PairBatches:
        return PairBatches(*self.splits.test, batch_tokens=self.eval_batch_tokens, **self.placed())

    def _tokenizer(self, language: str) -> str:
        return "tokenizer.json" if self.joint else f"tokenizer.{language}.json"

    def _read(self, split: str, language: str) -> list[str]:
        plain = self.folder / f"{FILES[split]}.{language}"
        packed = self.folder / f"{plain.name}.gz"
        path = plain if plain.is_file() else packed
        if not path.is_file():
            fetch([f"{URL}/{packed.name}"], packed, sha256=SHA256[packed.name])
        try:
            content = path.read_bytes() if path is plain else gzip.decompress(path.read_bytes())
            # not splitlines: a sentence may hold other characters that break a line, and the files are to stay side by side
            return content.decode("utf-8").removesuffix("\n").split("\n")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{path.name} can not be read ({error})", where=str(path), fix=f"the file of {URL}") from error
