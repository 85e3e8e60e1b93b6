"""A text of your own: one file, or a folder of them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from dlzoo.data.cache import fingerprint
from dlzoo.datamodules.text import Kind, Text
from dlzoo.errors import DataError

__all__ = ["TextFiles"]


class TextFiles(Text):
    """Texts in UTF-8. The files of a folder are shared out whole, in an order that hashes of their names give: a new file moves
    no other from one split to another. Of one file, or where there are too few, the end validates and tests.

    Args:
        root: the file, or the folder.
        pattern: which files of a folder are read, such as "*.txt"; folders in it are searched too.
        tokenizer: "characters" (those of the training split, and one for all others) or "byte_pairs".
        vocab_size: how many tokens there are: of characters, as many as the text has; of byte pairs, as many as are wanted.
        context: tokens of a window.
        batch_size: windows a training batch, over all devices together.
        eval_batch_size: windows a validation or test batch.
        val_fraction: share of the files, or of the text, that validates.
        test_fraction: share that tests.
        epoch_size: windows of a training epoch; None takes the whole text once.
        seed: of the order of the windows.
        run_dir: where the tokenizer is kept.
        token_dir: a folder for files of tokens, which are then mapped and not read: for folders of texts that are larger
            than memory. They are made once, with the tokenizer beside them. None keeps the tokens in memory.
        learn_from: characters of the training split that byte pairs are learned from; None takes all, which of a corpus of
            gigabytes takes hours and tens of gigabytes of memory.

    Batch:
        x (B, T), y (B, T), int64, one token later.

    Raises:
        ValueError: val_fraction and test_fraction leave nothing to train on, or test_fraction is not above 0.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        pattern: str = "*.txt",
        tokenizer: Kind = "byte_pairs",
        vocab_size: int = 1024,
        context: int = 64,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        epoch_size: int | None = None,
        seed: int = 0,
        run_dir: str | Path | None = None,
        token_dir: str | Path | None = None,
        learn_from: int | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            context=context,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_fraction=val_fraction,
            epoch_size=epoch_size,
            seed=seed,
            run_dir=run_dir,
            token_dir=token_dir,
            learn_from=learn_from,
        )
        if test_fraction <= 0 or val_fraction + test_fraction >= 1:
            raise ValueError(
                f"test_fraction must be above 0, and with val_fraction below 1, got {test_fraction} and {val_fraction}"
            )
        self.root, self.pattern, self.test_fraction = Path(root), pattern, test_fraction
        self._files: list[Path] = []

    @property
    def files(self) -> list[Path]:
        """All files, in the order of their names."""
        if not self._files:
            if not self.root.exists():
                raise DataError(
                    f"there is no {self.root}", where="data.root", fix="data.root=PATH, a text or a folder of texts"
                )
            self._files = [self.root] if self.root.is_file() else sorted(self.found(), key=self._name)
            if not self._files:
                raise DataError(f"{self.root} holds no {self.pattern}", where="data.root", fix="data.pattern='*.md', say")
        return self._files

    def found(self) -> Iterator[Path]:
        """The files of a folder, in any order; hidden ones are left out."""
        for path in self.root.rglob(self.pattern):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(self.root).parts):
                yield path

    def text(self, path: Path) -> str:
        """The text of one file."""
        try:
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path.name} is no text in UTF-8: {error}", where=str(path), fix="convert it, or data.pattern"
            ) from error

    def shares(self) -> dict[str, list[Path]] | None:
        """The files of each split, in the order of their names; None where there are too few for that."""
        count = len(self.files)
        tests, validates = round(count * self.test_fraction), round(count * self.val_fraction)
        if not tests or bool(validates) < self.validates:
            return None
        order = sorted(self.files, key=lambda path: hashlib.blake2b(self._name(path).encode()).digest())
        split = {"test": order[:tests], "val": order[tests : tests + validates], "train": order[tests + validates :]}
        return {name: sorted(paths, key=self._name) for name, paths in split.items()}

    def count(self, split: str) -> int | None:
        shares = self.shares()
        return None if shares is None else len(shares[split])

    def texts(self, split: str) -> Iterator[str]:
        shares = self.shares()
        if shares is not None:
            for text in map(self.text, shares[split]):
                yield text if text.endswith("\n") else f"{text}\n"
            return
        whole = "".join(map(self.text, self.files))
        tests, validates = (int(len(whole) * share) for share in (self.test_fraction, self.val_fraction))
        first, second = len(whole) - tests - validates, len(whole) - tests
        yield {"train": whole[:first], "val": whole[first:second], "test": whole[second:]}[split]

    @property
    def fingerprint(self) -> str:
        return f"{fingerprint('text', self.files)} {self.val_fraction} {self.test_fraction}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
