"""What a run of a language model shows: no pictures, but the text that it was given and what it writes."""

from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["TextSamples"]

SHOWN = 4  # windows of the first batch
RULE = "-" * 72


class TextSamples:
    """Writes batch.txt, the first training windows, and samples.txt, how the network goes on with a text of the evaluation.

    Args:
        folder: where they go.
        title: at their head.
        data: the datamodule: its tokenizer.
        mistakes: of no use here; all kinds of pictures are made alike.
    """

    def __init__(self, folder: Path, title: str, data: Any, mistakes: int) -> None:
        self.folder, self.title, self.data = folder, title, data
        self.clear()

    def first(self, batch: tuple[Tensor, Tensor]) -> None:
        """The first windows of the first training batch."""
        windows = [part for window in batch[0][:SHOWN] for part in (self._decoded(window), RULE)]
        self._write("batch.txt", f"{self.title}: the first batch as the network sees it", RULE, *windows)

    def clear(self) -> None:
        """Forgets the last evaluation."""
        self._shown: tuple[str, str] | None = None

    def watch(self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> None:
        """Keeps what the network wrote.

        Args:
            outputs: of the step; of one of them prompt (T,) and sample (S,), tokens.
            batch: inputs and targets.
        """
        if "sample" in outputs:
            self._shown = self._decoded(outputs["prompt"]), self._decoded(outputs["sample"])

    def gather(self, strategy: Any) -> None:
        """Each rank has a text of its own, and the first one's is shown."""

    def draw(self, split: str) -> None:
        """Writes what was watched."""
        if self._shown:
            head = f"{self.title}, {split}: a text, and how the network goes on with it"
            self._write("samples.txt", head, RULE, self._shown[0], RULE, self._shown[1], RULE)

    def _write(self, name: str, *lines: str) -> None:
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _decoded(self, tokens: Tensor) -> str:
        return self.data.tokenizer.decode(tokens.tolist())
