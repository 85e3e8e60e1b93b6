"""Tiny Shakespeare: 1.1 million characters of his plays, of 65 kinds."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from dlzoo.data.download import fetch
from dlzoo.data.tokenizers import Characters
from dlzoo.datamodules.text import Kind, Text
from dlzoo.errors import DataError

__all__ = ["TinyShakespeare"]

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TRAIN = 0.9  # nanoGPT's cut; what it validates on tests here


class TinyShakespeare(Text):
    """The first nine tenths train, the last tenth tests: nanoGPT cuts so, and validates on the latter. Here the end of the
    former validates, so that nothing is chosen by what tests.

    Found in data_dir/tiny_shakespeare/input.txt; otherwise downloaded.

    Source: Karpathy 2015, https://github.com/karpathy/char-rnn; cut as in https://github.com/karpathy/nanoGPT.

    Args:
        data_dir: where the data sets lie.
        tokenizer: "characters" or "byte_pairs".
        vocab_size: how many tokens there are: 65 characters, or as many byte pairs as are wanted.
        context: tokens of a window.
        batch_size: windows a training batch, over all devices together.
        eval_batch_size: windows a validation or test batch.
        val_fraction: share of the training part, its end, that validates; 0 trains on all of it.
        epoch_size: windows of a training epoch; None takes the whole text once.
        seed: of the order of the windows.
        run_dir: where the tokenizer is kept.

    Batch:
        x (B, T), y (B, T), int64, one token later.
    """

    published: ClassVar[int] = 1_115_394  # characters

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        tokenizer: Kind = "characters",
        vocab_size: int = 65,
        context: int = 64,
        batch_size: int = 12,
        eval_batch_size: int = 96,
        val_fraction: float = 0.05,
        epoch_size: int | None = None,
        seed: int = 0,
        run_dir: str | Path | None = None,
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
        )
        self.file = Path(data_dir) / "tiny_shakespeare" / "input.txt"
        self._text = ""

    def texts(self, split: str) -> Iterator[str]:
        text = self._read()
        end = int(len(text) * TRAIN)
        kept = end - int(end * self.val_fraction)
        yield {"train": text[:kept], "val": text[kept:end], "test": text[end:]}[split]

    @property
    def fingerprint(self) -> str:
        return f"{SHA256} {self.val_fraction}"

    def alphabet(self) -> Characters:
        return Characters("".join(sorted(set(next(self.texts("train"))))))  # it has all there are: none is unknown

    def _read(self) -> str:
        if not self._text:
            if not self.file.is_file():
                fetch([URL], self.file, sha256=SHA256)
            try:
                text = self.file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{self.file.name} is no text", where=str(self.file), fix=f"the file of {URL}") from error
            if len(text) != self.published:
                raise self.unlike(f"expected {self.published:,} characters, found {len(text):,}.")
            self._text = text
        return self._text
