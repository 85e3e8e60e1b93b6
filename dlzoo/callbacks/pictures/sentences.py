"""What a run of a translator shows: sentences, what the network makes of them, and where it looked while it wrote."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dlzoo.plots import figure
from dlzoo.plots.alignment import alignment

__all__ = ["TranslationSamples"]

FIRST = 8  # pairs of the first batch
RULE = "-" * 72


class TranslationSamples:
    """Writes batch.txt, the first training pairs, samples.txt, the first sentences of an evaluation with the network's and the
    people's translations, and alignment.png, where the network looked in the first of them.

    Args:
        folder: where they go.
        title: at their head.
        data: the datamodule: its sentences and languages.
        mistakes: of no use here; all kinds of pictures are made alike.
    """

    def __init__(self, folder: Path, title: str, data: Any, mistakes: int) -> None:
        self.folder, self.title, self.data = folder, title, data
        self.clear()

    def first(self, batch: Any) -> None:
        """The first pairs of the first training batch."""
        read, write = self.data.sentences(self.data.source), self.data.sentences(self.data.target)
        pairs = []
        for source, target in zip(batch.source[:FIRST].tolist(), batch.target[:FIRST].tolist(), strict=True):
            pairs += [" ".join(read.pieces(source)), " ".join(write.pieces(target)), RULE]
        self._write("batch.txt", f"{self.title}: the first batch as the network sees it", RULE, *pairs)

    def clear(self) -> None:
        """Forgets the last evaluation."""
        self._shown: dict[int, tuple[list[int], list[int], Tensor]] = {}

    def watch(self, outputs: dict[str, Tensor], batch: Any) -> None:
        """Keeps what the network wrote of the sentences that are shown.

        Args:
            outputs: of the step; of some of them shown (N,), source (N, S), written (N, T) and looks (N, T, S).
            batch: the pairs.
        """
        if "shown" in outputs:
            rows = zip(*(outputs[name] for name in ("shown", "source", "written", "looks")), strict=True)
            for index, source, written, looks in rows:
                self._shown[int(index)] = source.tolist(), written.tolist(), looks.float().cpu()

    def gather(self, strategy: Any) -> None:
        """Each rank has sentences of its own, and the first one's are shown."""

    def draw(self, split: str) -> None:
        """Writes what was watched."""
        if not self._shown:
            return
        data, part = self.data, {"validation": "val"}.get(split, split)
        read, write = data.sentences(data.source), data.sentences(data.target)
        lines = []
        for index, (_, written, _) in sorted(self._shown.items()):
            found = ("source", data.lines(part, data.source)[index]), ("writes", write.decode(written))
            lines += [f"{name:9} {text}" for name, text in (*found, ("reference", data.references(part)[index]))]
            lines.append(RULE)
        head = f"{self.title}, {split}: {data.source} to {data.target}, the first sentences"
        self._write("samples.txt", head, RULE, *lines)
        source, written, looks = self._shown[min(self._shown)]
        ours, theirs = write.pieces(written), read.pieces(source)
        drawn = alignment(looks[: len(ours), : len(theirs)], theirs, ours, f"{self.title}, {split}: where it looks")
        figure.save(drawn, self.folder / "alignment.png")

    def _write(self, name: str, *lines: str) -> None:
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
