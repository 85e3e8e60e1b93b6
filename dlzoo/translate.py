"""`dlzoo translate`: lines in, lines out, by the network of a run."""

import argparse
import contextlib
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo import rundir, verbs
from dlzoo.ending import only
from dlzoo.errors import ConfigError, DataError, polite

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Options", "Translator", "main", "translate"]

LONGER = 2  # a sentence may be so many times as long as the longest of the training
BEAMS, ALPHA, BATCH = 5, 0.6, 32


@dataclass(frozen=True)
class Options:
    """What can be chosen.

    Args:
        beams: sequences that the search goes on with; 1 is greedy search.
        alpha: of the length penalty; more prefers longer translations.
        batch: lines at a time.
        which: "best" or "last" weights.
    """

    beams: int = BEAMS
    alpha: float = ALPHA
    batch: int = BATCH
    which: str = "best"


class Translator:
    """The network of a run and what makes its tokens. Needs no data set.

    Args:
        run: the run's directory, or one of its checkpoints.
        options: see there.

    Raises:
        ConfigError: no such run, or one that does not translate, or a number that is too small.
        CheckpointError: it has no checkpoint, or one that is damaged.
        DataError: its tokenizer is missing.
    """

    def __init__(self, run: str | Path, options: Options = Options()) -> None:
        for name, value in (("--beam", options.beams), ("--batch", options.batch)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}", where=name)
        self.options, self.run = options, rundir.find(run)
        only(self.run, "translation", "translate", "multi30k_transformer")
        self.facts = self.run.summary["preprocess"]
        from dlzoo.data.sentences import Sentences

        self.reads = Sentences.load(self.run.dir / self.facts["source_tokenizer"])
        self.writes = Sentences.load(self.run.dir / self.facts["target_tokenizer"])
        self.net: nn.Module = verbs.load(run, options.which)
        self.max_length = self.run.config["task"]["max_length"]

    def lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The translation of each line, as soon as its batch is done. An empty line stays one.

        Raises:
            DataError: a line is far longer than what the network was trained on.
        """
        numbered = enumerate((line.strip() for line in lines), 1)
        while batch := list(itertools.islice(numbered, self.options.batch)):
            tokens = [self._encode(line, number) for number, line in batch if line]
            found = iter(self._write(tokens) if tokens else [])
            yield from (self.writes.decode(next(found)) if line else "" for _, line in batch)

    def draw(self, line: str, path: Path) -> None:
        """The picture of where the network looks while it translates a line."""
        import torch
        import torch.nn.functional as F

        from dlzoo.data.sentences import BEGIN
        from dlzoo.plots import figure
        from dlzoo.plots.alignment import alignment

        source = torch.from_numpy(self._encode(line.strip(), 1))[None]
        written = torch.tensor(self._write([source[0].numpy()]))
        theirs, ours = self.reads.pieces(source[0].tolist()), self.writes.pieces(written[0].tolist())
        with torch.inference_mode():
            looks = self.net.align(source, F.pad(written[:, :-1], (1, 0), value=BEGIN))[0, : len(ours)]
        title = f"{self.facts['source']} to {self.facts['target']}: where it looks"
        figure.save(alignment(looks, theirs, ours, title), path)

    def _encode(self, line: str, number: int) -> Any:
        tokens, longest = self.reads.encode(line), self.facts["longest"]
        if len(tokens) > LONGER * longest:
            raise DataError(
                f"line {number} has {len(tokens)} tokens, and the longest sentence of the training had {longest}",
                where=f"{line[:40]}...",
                fix="one sentence a line",
            )
        return tokens

    def _write(self, rows: Sequence[Any]) -> list[list[int]]:
        import torch

        from dlzoo.data.pair_batches import Rows
        from dlzoo.data.sentences import BEGIN, END
        from dlzoo.ops.search import write

        source = Rows(rows).take(torch.arange(len(rows)))
        with torch.inference_mode():
            tokens, _ = write(self.net, source, BEGIN, END, self.max_length, self.options.beams, self.options.alpha)
        return tokens.tolist()


def translate(run: str | Path, lines: Iterable[str], options: Options = Options()) -> Iterator[str]:
    """The translations of some lines, one each, in their order.

    Args:
        run: the run's directory, or one of its checkpoints.
        lines: sentences, one each.
        options: see there.

    Raises:
        DlzooError: as `Translator`.
    """
    return Translator(run, options).lines(lines)


def _read(path: str | None) -> Iterator[str]:
    """The lines of a file, or of the standard input, as they come."""
    standard: Any = sys.stdin
    if path is None and hasattr(standard, "buffer"):
        standard = io.TextIOWrapper(standard.buffer, encoding="utf-8")
    try:
        with contextlib.nullcontext(standard) if path is None else open(path, encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path or 'the standard input'} can not be read"
        reason = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{what}: {reason}", fix="a text file, one sentence a line") from error


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = polite(
        argparse.ArgumentParser(
            prog="dlzoo translate",
            description="Translates by the network of a run: the words given, or the lines of --file or of the standard input.",
            allow_abbrev=False,
        )
    )
    parser.add_argument("run", help="the run's directory, or a checkpoint in it")
    parser.add_argument("words", nargs="*", help="one sentence; without it lines are read")
    parser.add_argument("--file", help="a text file, one sentence a line")
    parser.add_argument("--beam", type=int, default=BEAMS, metavar="N", help=f"width of the search, 1 is greedy ({BEAMS})")
    parser.add_argument("--alpha", type=float, default=ALPHA, help=f"of the length penalty, more for longer lines ({ALPHA})")
    parser.add_argument("--batch", type=int, metavar="N", help=f"lines at a time ({BATCH}; 1 where a person types)")
    parser.add_argument("--attention", metavar="PICTURE", help="where it looked in the first line, as .png, .svg or .pdf")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    args = parser.parse_intermixed_args(arguments)
    if args.words and args.file:
        raise ConfigError("words and --file were given: one of them", where="--file")
    if args.attention and Path(args.attention).suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"{args.attention} is no picture", where="--attention", fix="--attention alignment.png")
    if args.file and not Path(args.file).is_file():
        raise DataError(f"there is no file {args.file}", where="--file", fix="a text file, one sentence a line")
    typed = not (args.words or args.file) and sys.stdin.isatty()
    options = Options(args.beam, args.alpha, args.batch or (1 if typed else BATCH), "last" if args.last else "best")
    translator = Translator(args.run, options)
    first = ""

    def lines() -> Iterator[str]:
        nonlocal first
        for line in [" ".join(args.words)] if args.words else _read(args.file):
            first = first or line.strip()
            yield line

    for line in translator.lines(lines()):
        print(line, flush=True)
    if not first:
        raise DataError("there is nothing to translate", fix=f'{rundir.dlzoo_command()} translate {args.run} "Ein Satz."')
    if args.attention:
        translator.draw(first, Path(args.attention))
        print(args.attention, file=sys.stderr)
