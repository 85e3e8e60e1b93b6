"""`dlzoo generate`: the network of a run writes on from a prompt, and the text comes as it is written."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dlzoo import rundir, verbs
from dlzoo.ending import only
from dlzoo.errors import ConfigError, DataError, polite

__all__ = ["Options", "Written", "generate", "main"]

TOKENS, TEMPERATURE = 500, 0.8
RULE = "-" * 72


@dataclass(frozen=True)
class Options:
    """What can be chosen.

    Args:
        tokens: new ones, at most.
        temperature: sharper below 1, flatter above; 0 is greedy.
        top_k: only the k likeliest may follow; None for all.
        top_p: only the fewest that hold this share of the probability may follow.
        repetition_penalty: above 1, tokens of the text so far are less likely.
        stops: strings that end a text, which is cut before them.
        samples: texts of each prompt.
        seed: of the draws; each text has its own stream of them.
        which: "best" or "last" weights.
    """

    tokens: int = TOKENS
    temperature: float = TEMPERATURE
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stops: Sequence[str] = ()
    samples: int = 1
    seed: int = 0
    which: str = "best"


@dataclass(frozen=True)
class Written:
    """One text.

    Args:
        prompt: what was given.
        text: what the network wrote after it.
        tokens: how many it wrote, those of a stop string too.
        ended: "stop" at a stop string, or "length".
    """

    prompt: str
    text: str
    tokens: int
    ended: str


def generate(
    run: str | Path,
    prompts: str | Sequence[str],
    options: Options | None = None,
    say: Callable[[int, str], None] = lambda text, part: None,
) -> list[Written]:
    """Writes on from prompts with a run's language model, all of them at once.

    Args:
        run: its directory, or one of its checkpoints.
        prompts: one or several.
        options: see there.
        say: is called with the number of the text and its next part, as soon as that is certain.

    Returns:
        the texts, `options.samples` of each prompt, one prompt after the other.

    Raises:
        ConfigError: no such run, one that is no language model, an empty prompt, or an option that can not be.
        DataError: the prompt has a character that the run's tokenizer does not know.
        CheckpointError: the run has no checkpoint, or one that is damaged.
    """
    options = options or Options()
    found = rundir.find(run)
    only(found, "text", "write", "shakespeare_gpt")
    for name, least in (("tokens", 1), ("samples", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(options, name)}", where=f"--{name}")
    from dlzoo.data.streams import generator
    from dlzoo.data.text_stream import TextStream
    from dlzoo.data.tokenizers import load_tokenizer
    from dlzoo.nn.reading import reader
    from dlzoo.ops.generation import Choice
    from dlzoo.ops.generation import generate as write

    try:
        choice = Choice(options.temperature, options.top_k, options.top_p, options.repetition_penalty)
    except ValueError as error:
        flag = "--" + str(error).partition(" ")[0].replace("_", "-")
        raise ConfigError(str(error), where=flag) from error
    if not all(options.stops):
        raise ConfigError("a stop string is empty: every text would end at once", where="--stop")
    tokenizer = load_tokenizer(found.dir / "tokenizer.json")
    texts = [text for text in ([prompts] if isinstance(prompts, str) else prompts) for _ in range(options.samples)]
    tokens = [_encoded(tokenizer, text) for text in texts]
    net = verbs.load(run, options.which)
    streams = [TextStream(tokenizer, options.stops) for _ in texts]
    for row, text in enumerate(texts):
        say(row, text)

    def told(row: int, token: int) -> bool:
        say(row, streams[row].add(token))
        return streams[row].stopped

    randoms = [generator("generate", options.seed, row) for row in range(len(texts))]
    new = write(reader(net, found.summary["preprocess"]["context"]), tokens, options.tokens, choice, randoms, told)
    for row, stream in enumerate(streams):
        say(row, stream.end())
    return [
        Written(text, stream.text, len(row), "stop" if stream.stopped else "length")
        for text, stream, row in zip(texts, streams, new, strict=True)
    ]


def _encoded(tokenizer: object, text: str) -> list[int]:
    """The tokens of a prompt; the token for what is unknown has never been trained."""
    if not text:
        raise ConfigError("the prompt is empty: the network goes on from something", fix="a first word, or $'\\n'")
    alphabet = getattr(tokenizer, "alphabet", None)
    if alphabet is not None and (strange := sorted(set(text) - set(alphabet))):
        raise DataError(
            f"the prompt has {', '.join(map(repr, strange[:8]))}, which no text of the training had",
            where=f"the tokenizer knows {len(alphabet)} characters: {''.join(c for c in alphabet if c.isprintable())[:120]}",
            fix="a prompt of those characters",
        )
    return tokenizer.encode(text).tolist()  # type: ignore[attr-defined]


def main(arguments: Sequence[str]) -> None:
    """`dlzoo generate RUN [PROMPT]`."""
    run, prompts, options, as_json = parsed(arguments)
    if as_json:
        found = generate(run, prompts, options)
        print(json.dumps([asdict(text) for text in found], indent=2, ensure_ascii=False))
        return
    screen = Screen(len(prompts) * options.samples)
    generate(run, prompts, options, screen.say)
    screen.end()


class Screen:
    """Shows texts one below the other: the first as it comes, the others as far as they are when it is their turn.

    Args:
        count: of the texts; between several there is a line.
    """

    def __init__(self, count: int) -> None:
        self.parts = [""] * count

    def say(self, row: int, part: str) -> None:
        """The next part of a text."""
        if row:
            self.parts[row] += part
        else:
            self._write(part)

    def end(self) -> None:
        """The first text is complete, and so are the others."""
        for text in self.parts[1:]:
            self._write(f"\n{RULE}\n{text}")
        self._write("\n")

    def _write(self, text: str) -> None:
        # a terminal may know fewer characters than the tokenizer
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


def parsed(arguments: Sequence[str]) -> tuple[str, list[str], Options, bool]:
    """What the command line asks for: the run, the prompts, the options, and whether the answer is JSON.

    Raises:
        ConfigError: an unknown flag, a value that can not be, or no prompt.
        DataError: the file of prompts can not be read.
    """
    parser = polite(argparse.ArgumentParser(prog="dlzoo generate", description=(__doc__ or "").strip(), allow_abbrev=False))
    parser.usage = 'dlzoo generate RUN ["PROMPT"] [--tokens N] [--greedy] [--samples N] ...'
    parser.add_argument("run", help="the run's directory, or a checkpoint in it")
    parser.add_argument("prompt", nargs="?", help="what the text begins with; without it, or as -, standard input is read")
    parser.add_argument("--file", metavar="FILE", help="the prompt is in a file")
    parser.add_argument("--each-line", action="store_true", help="each line of the file or of standard input is a prompt")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"new tokens, at most ({TOKENS})")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token: no draws")
    temperature = f"sharper below 1, flatter above ({TEMPERATURE})"
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, metavar="X", help=temperature)
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens may follow (all)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="only the fewest that hold this share may (1)")
    penalty = "above 1, what was said already is less likely (1)"
    parser.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help=penalty)
    stop = "a string that ends a text, which is cut before it; \\n is a line end; may be given several times"
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help=stop)
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts of each prompt, written together (1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    parser.add_argument("--json", action="store_true", help="JSON on the screen, for other programs")
    args = parser.parse_args(list(arguments))
    if args.greedy and args.samples > 1:
        raise ConfigError("--greedy writes the same text each time, and --samples asks for several", where="--samples")
    options = Options(
        args.tokens,
        0.0 if args.greedy else args.temperature,
        args.top_k,
        args.top_p,
        args.repetition_penalty,
        [stop.replace("\\n", "\n") for stop in args.stop],
        args.samples,
        args.seed,
        "last" if args.last else "best",
    )
    rundir.find(args.run)  # told before a prompt is waited for
    return args.run, _prompts(args.prompt, args.file, args.each_line), options, args.json


def _prompts(prompt: str | None, file: str | None, each_line: bool) -> list[str]:
    if prompt not in (None, "-"):
        if file or each_line:
            raise ConfigError("a prompt on the command line, or from elsewhere: not both", where="dlzoo generate")
        return [str(prompt)]
    if file:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise DataError(f"the prompt can not be read: {reason}", where=file) from error
    else:
        if prompt is None and sys.stdin.isatty():
            raise ConfigError("there is no prompt", where="dlzoo generate", fix='dlzoo generate RUN "PROMPT", or --file FILE')
        text = sys.stdin.read()
    text = text.removesuffix("\n")  # that of the last line, as a shell's $(...) drops it
    prompts = [line for line in text.split("\n") if line] if each_line else [text]
    if not any(prompts):
        raise ConfigError("the prompt is empty: the network goes on from something", where=file or "standard input")
    return prompts
