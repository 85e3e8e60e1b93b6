"""`dlzoo explain`: the pictures that show what the network of a run has learned, and what it looks at."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlzoo import insight_pictures, insight_text, rundir
from dlzoo.errors import ConfigError, DataError, polite, suggest
from dlzoo.rundir import Run

# what draws, by the kind of input that a run was trained on
LOOKS = {
    "image": insight_pictures.Look,
    "wave": insight_pictures.Look,
    "text": insight_text.TextLook,
    "sentences": insight_text.SentencesLook,
}
POINTS, SAMPLES, TOP = 15, 256, 5
GRADIENTS = "gradients_through_time.png"


@dataclass(frozen=True)
class Options:
    """What can be chosen.

    Args:
        picture: a file of the user's instead of test pictures.
        layer: a name as in the network's `named_modules`.
        which: "best" or "last" weights.
        beside: another run, whose loss landscape, or gradients, are drawn beside this one's.
        points: of the landscape's grid, along one side.
        samples: that the landscape's loss is the mean of.
        text: the user's instead of validation text; of a translator a sentence to translate.
        top: likeliest next tokens that are shown.
        overrides: such as data_dir=PATH.
    """

    picture: str | None = None
    layer: str | None = None
    which: str = "best"
    beside: str | None = None
    points: int = POINTS
    samples: int = SAMPLES
    text: str | None = None
    top: int = TOP
    overrides: Sequence[str] = field(default_factory=list)


def explain(
    run: str | Path, what: str = "all", options: Options | None = None, say: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Draws the pictures of a run's network, into the folder `explain` of its directory.

    Args:
        run: its directory, or one of its checkpoints.
        what: one of the kinds that there are for its data, or "all" of those that apply to it.
        options: see there.
        say: is called with the lines to print.

    Returns:
        the files.

    Raises:
        ConfigError: no such run, picture or layer, or one that does not apply to this network.
        DataError: the data are not here; with a picture or a text of yours most of the pictures can do without.
    """
    options = options or Options()
    found = rundir.find(run)
    make = _look(found, options)
    if what != "all" and what not in make.kinds:
        raise ConfigError(
            f"there is no picture {what!r} of this kind of run",
            where="dlzoo explain",
            fix=suggest(what, make.kinds) or ", ".join(make.kinds),
        )
    if options.beside:
        rundir.find(options.beside)  # told at once, and not after the first landscape
    look = make(found, run, options)
    if options.layer:
        from dlzoo.explain.layers import find

        find(look.net, options.layer)
    written = []
    for kind in make.kinds if what == "all" else [what]:
        try:
            figures = look.draw(kind)
        except (ConfigError, DataError) as error:
            if what != "all" or (isinstance(error, DataError) and not (options.picture or options.text)):
                raise
            say(f"{kind}: left out, {error.what}")
            continue
        from dlzoo.plots import figure

        for name, drawn in figures.items():
            path = found.dir / "explain" / f"{name}.png"
            figure.save(drawn, path)
            written.append(path)
            say(str(path))
        for line in [f"  {make.kinds[kind]}", *look.tell(kind)]:
            say(line)
    for line in look.hints([path.stem for path in written]):
        say(line)
    return written


def _look(run: Run, options: Options) -> Any:
    """What draws for this kind of run.

    Raises:
        ConfigError: nothing does, or an option is of another kind.
    """
    kind = run.summary["preprocess"].get("kind", "image")
    if kind not in LOOKS:
        raise ConfigError(
            f"the run is of {kind}, of which no pictures are drawn",
            where=str(run.dir),
            fix=f"a run of pictures, recordings or text; curves.png is in {run.dir}",
        )
    pictures = LOOKS[kind] is insight_pictures.Look
    for flag, value, applies in (("--picture", options.picture, pictures), ("--text", options.text, not pictures)):
        if value and not applies:
            raise ConfigError(f"the run is of {'pictures' if kind == 'image' else kind}, and {flag} is not", where=flag)
    return LOOKS[kind]


def main(arguments: Sequence[str]) -> None:
    """`dlzoo explain RUN [WHAT] [key=value ...]`, or `dlzoo explain --gradients`."""
    args = parsed(arguments)
    say = (lambda line: None) if args.json else _say
    if args.gradients:
        written = [insight_text.cells_through_time(Path(args.out), say)]
    else:
        written = explain(args.run, args.what, args.options, say)
    if args.json:
        print(json.dumps([str(path) for path in written], indent=2))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for: run, what, options, json, gradients, out.

    Raises:
        ConfigError: an unknown flag, no run, more than one kind, or a number too small.
    """
    parser = polite(argparse.ArgumentParser(prog="dlzoo explain", description=(__doc__ or "").strip(), allow_abbrev=False))
    parser.usage = (
        "dlzoo explain RUN [WHAT] [--picture FILE | --text TEXT] [--layer NAME] [--beside RUN] [key=value ...]\n"
        "       dlzoo explain --gradients [--out FILE]"
    )
    of_text = {**insight_text.TEXT, **insight_text.SENTENCES}
    parser.add_argument("run", nargs="?", help="the run's directory, or a checkpoint in it")
    what = f"all, or of pictures and recordings: {', '.join(insight_pictures.KINDS)}; of text: {', '.join(of_text)}"
    parser.add_argument("words", nargs="*", metavar="WHAT", help=what)
    parser.add_argument("--picture", metavar="FILE", help="a picture of yours, instead of test pictures")
    parser.add_argument("--text", metavar="TEXT", help="a text of yours, instead of validation text")
    parser.add_argument("--layer", metavar="NAME", help="instead of the last map, the first filters, the classes, all heads")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    parser.add_argument("--beside", metavar="RUN", help="another run, whose landscape or gradients are drawn beside this one's")
    parser.add_argument("--points", type=int, default=POINTS, metavar="N", help=f"the landscape's grid is N x N ({POINTS})")
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help=f"samples of its loss ({SAMPLES})")
    parser.add_argument("--top", type=int, default=TOP, metavar="N", help=f"likeliest next tokens ({TOP})")
    parser.add_argument(
        "--gradients", action="store_true", help="without a run: gradients through 100 steps of RNN, GRU and LSTM, untrained"
    )
    parser.add_argument("--out", default=GRADIENTS, metavar="FILE", help=f"its picture ({GRADIENTS})")
    parser.add_argument("--json", action="store_true", help="the files as JSON, for other programs")
    args = parser.parse_intermixed_args(list(arguments))
    if args.gradients and args.run:
        fix = f"dlzoo explain {args.run} gradients, or dlzoo explain --gradients"
        raise ConfigError("--gradients is of untrained networks, and takes no run", where="--gradients", fix=fix)
    if not args.run and not args.gradients:
        raise ConfigError("which run?", where="dlzoo explain", fix="dlzoo explain RUN; dlzoo list runs shows those in ./runs")
    kinds = [word for word in args.words if "=" not in word]
    if len(kinds) > 1:
        raise ConfigError(f"one kind of picture at a time, or all: got {' '.join(kinds)}", where="dlzoo explain")
    for flag, least in (("points", 2), ("samples", 2), ("top", 1)):
        if getattr(args, flag) < least:
            raise ConfigError(f"--{flag} must be at least {least}, got {getattr(args, flag)}", where=f"--{flag}")
    args.what = kinds[0] if kinds else "all"
    overrides = [word for word in args.words if "=" in word]
    which = "last" if args.last else "best"
    sizes = {"points": args.points, "samples": args.samples, "text": args.text, "top": args.top}
    args.options = Options(args.picture, args.layer, which, args.beside, **sizes, overrides=overrides)
    return args


def _say(line: str) -> None:
    print(line, flush=True)
