"""The Python standard library's own source, as the running interpreter has it: a corpus that is always there."""

import os
import platform
import string
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from dlzoo.data.tokenizers import Characters
from dlzoo.datamodules.text import Kind
from dlzoo.datamodules.text_files import TextFiles
from dlzoo.errors import DataError

__all__ = ["Stdlib"]

# what others installed, what is not written by people, and the library's own tests
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


class Stdlib(TextFiles):
    """About 700 modules, 12 million characters of Python, without their tests. Whole files validate and test, by hashes of
    their names: a module is in the same split for every version of Python.

    The alphabet is fixed, so that versions can be compared: the hundred characters of `string.printable`, and one token for
    all others.

    Args:
        tokenizer: "characters" or "byte_pairs".
        vocab_size: how many tokens there are: 101 characters, or as many byte pairs as are wanted.
        context: tokens of a window.
        batch_size: windows a training batch, over all devices together.
        eval_batch_size: windows a validation or test batch.
        val_fraction: share of the modules that validates.
        test_fraction: share that tests.
        epoch_size: windows of a training epoch; None takes the whole text once.
        seed: of the order of the windows.
        run_dir: where the tokenizer is kept.

    Batch:
        x (B, T), y (B, T), int64, one token later.
    """

    folder: ClassVar[Path] = Path(sysconfig.get_paths()["stdlib"])

    def __init__(
        self,
        *,
        tokenizer: Kind = "characters",
        vocab_size: int = 101,
        context: int = 64,
        batch_size: int = 12,
        eval_batch_size: int = 96,
        val_fraction: float = 0.02,
        test_fraction: float = 0.03,
        epoch_size: int | None = None,
        seed: int = 0,
        run_dir: str | Path | None = None,
    ) -> None:
        super().__init__(
            self.folder,
            pattern="*.py",
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            context=context,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            epoch_size=epoch_size,
            seed=seed,
            run_dir=run_dir,
        )

    def found(self) -> Iterator[Path]:
        for place, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in LEFT_OUT]  # what was installed can be a hundred times as much
            yield from (Path(place) / name for name in names if name.endswith(".py"))

    def text(self, path: Path) -> str:
        try:
            with tokenize.open(path) as file:  # in the encoding that its first lines name
                return file.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise DataError(f"{path.name} is no Python that can be read: {error}", where=str(path)) from error

    def alphabet(self) -> Characters:
        return Characters(string.printable, unknown=True)

    @property
    def described(self) -> str:
        return f"the standard library of Python {platform.python_version()}, {len(self.files)} modules"
