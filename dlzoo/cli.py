"""The command line: dlzoo train|evaluate|predict|export|resume|list|doctor.

Each verb imports what it needs and no more, so that help, lists and mistakes answer at once.
"""

import argparse
import importlib
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlzoo import __version__
from dlzoo.errors import ConfigError, DlzooError, StorageError, polite, suggest
from dlzoo.memory import is_out_of_memory, out_of_memory
from dlzoo.signals import Stopped

VERBS = {
    "train": "train a model: dlzoo train experiment=cifar10_resnet trainer.max_epochs=6",
    "resume": "go on with a run, the latest unfinished one if none is named: dlzoo resume [RUN] [key=value ...]",
    "evaluate": "measure a run on its test split: dlzoo evaluate RUN",
    "predict": "label pictures: dlzoo predict RUN FILE|FOLDER",
    "generate": 'write on from a prompt with a language model: dlzoo generate RUN "PROMPT" [--greedy] [--samples N]',
    "translate": "lines in, lines out, by a run of a translator: dlzoo translate RUN [--file FILE] [--beam N]",
    "forecast": "how a series goes on: dlzoo forecast RUN FILE.csv [--out FILE.csv]",
    "explain": "pictures of what a run has learned: dlzoo explain RUN [gradcam|landscape|heads|next|...] [--text TEXT]",
    "export": "write a run as ONNX, compared with torch: dlzoo export RUN",
    "consolidate": "a run's weights, shares too, as one model.safetensors: dlzoo consolidate RUN",
    "sweep": "many runs: dlzoo sweep seed=1,2,3 | hparams_search=digits_optuna | DIR",
    "compare": "runs beside each other, with a picture of their curves: dlzoo compare RUN RUN [--metric val/loss]",
    "tune": "a learning rate from a range test, before a run: dlzoo tune lr [key=value ...]",
    "list": "what there is: dlzoo list models|experiments|data|runs|... [PATTERN]",
    "doctor": "what this machine has: a block to paste into an issue",
}
# verbs that are files of their own
HOMES = {verb: f"dlzoo.{verb}" for verb in ("compare", "forecast", "generate", "sweep", "translate", "tune")} | {
    "explain": "dlzoo.insight"
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code; a user's mistake is a few lines, never a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except DlzooError as error:
        return _fail(error, error.exit_code)
    except Stopped as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 2
    except Exception as error:
        known = _in_our_words(error)
        if known is not None:
            return _fail(known, known.exit_code, error)
        return _fail(
            DlzooError(
                f"{type(error).__name__}: {str(error).strip()[:600]}",
                where=_place(error),
                fix="DLZOO_DEBUG=1 shows the whole traceback; train.log in the run directory has it too",
            ),
            1,
            error,
        )


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("dlzoo: a PyTorch model zoo, training framework and course\n")
        print("\n".join(f"  dlzoo {verb:9} {text}" for verb, text in VERBS.items()))
        print("\n`dlzoo VERB --help` says more of one.")
        return 0
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise ConfigError(f"there is no verb {verb!r}", where=f"dlzoo {verb}", fix=suggest(verb, VERBS) or "dlzoo --help")
    from dlzoo import targets

    rest, packages = targets.named(rest)
    with targets.allowed(packages):
        command = importlib.import_module(HOMES[verb]).main if verb in HOMES else globals()[f"_{verb}"]
        command(rest)
    return 0


def _train(arguments: list[str]) -> None:
    from dlzoo import ending, jobs, run

    jobs.follow_parent()
    finished = run.main(arguments)
    if finished is not None:
        ending.show(finished)


def _resume(arguments: list[str]) -> None:
    from dlzoo import ending, resume, run

    parser = _parser("resume")
    parser.usage = "dlzoo resume [RUN] [key=value ...] [--dir FOLDER]"
    parser.add_argument("--dir", default="runs", help="where the latest unfinished run is looked for, if RUN is left out")
    named = arguments[0] if arguments and "=" not in arguments[0] and not arguments[0].startswith("-") else None
    args = _parse(parser, arguments[1:] if named else arguments)
    ending.show(run.go_on(resume.chosen(named, Path(args.dir)), args.overrides))


def _evaluate(arguments: list[str]) -> None:
    from dlzoo import launch, rundir, verbs

    parser = _parser("evaluate", run="the run's directory, or a checkpoint in it")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    parser.add_argument("--json", action="store_true", help="JSON on the screen")
    args = _parse(parser, arguments)
    metrics = verbs.evaluate(args.run, "last" if args.last else "best", args.overrides)
    if launch.global_rank():  # one of several processes speaks
        return
    if args.json:
        print(json.dumps(metrics, indent=2))
        return
    found = rundir.find(args.run)
    edition = found.summary["edition"]
    _table(["metric", "value"], [[name, f"{value:.4f}"] for name, value in sorted(metrics.items())])
    for name, signature in json.loads((found.dir / "evaluation.json").read_text(encoding="utf-8"))["signatures"].items():
        print(f"{name}: {signature}")
    if edition:
        print(f"data: {edition}")


def _predict(arguments: list[str]) -> None:
    from dlzoo import verbs

    parser = _parser(
        "predict", run="the run's directory, or a checkpoint in it", source="a picture or a recording, or a folder of them"
    )
    parser.add_argument("--top", type=int, default=3, metavar="N", help="labels for each picture (3)")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    parser.add_argument("--json", action="store_true", help="JSON on the screen, for other programs")
    args = _parse(parser, arguments)
    if args.top < 1:
        raise ConfigError(f"--top must be at least 1, got {args.top}", where="--top")
    found = verbs.predict(args.run, args.source, args.top, "last" if args.last else "best")
    if args.json:
        print(json.dumps([vars(prediction) for prediction in found], indent=2, ensure_ascii=False))
        return
    rows = [
        [p.file, "  ".join(f"{label} {probability:.1%}" for label, probability in zip(p.labels, p.probabilities, strict=True))]
        for p in found
    ]
    drawn = any(p.overlay for p in found)
    _table(["file", "labels", *["overlay"] * drawn], [[*row, *[p.overlay] * drawn] for row, p in zip(rows, found, strict=True)])


def _export(arguments: list[str]) -> None:
    from dlzoo import verbs

    parser = _parser("export", run="the run's directory, or a checkpoint in it")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    args = _parse(parser, arguments)
    path, report = verbs.export(args.run, "last" if args.last else "best", args.overrides)
    if "files" in report:
        _exported_texts(path, report)
        return
    first, rest = report["batches"][: len(verbs.CHECKED_BATCHES)], report["batches"][len(verbs.CHECKED_BATCHES) :]
    count = sum(batch["batch_size"] for batch in rest)
    every = {
        "batch_size": count,
        "max_abs": max(batch["max_abs"] for batch in rest),
        "max_rel": max(batch["max_rel"] for batch in rest),
        "top1": sum(batch["top1"] * batch["batch_size"] for batch in rest) / count,
    }
    rows = [
        [str(batch["batch_size"]), f"{batch['max_abs']:.2e}", f"{batch['max_rel']:.2e}", f"{batch['top1']:.2%}"]
        for batch in [*first, every]
    ]
    lengths = report.get("lengths", {})
    series = report["preprocess"].get("kind") == "series"  # a forecast has no labels
    kind, labels = ("windows", []) if series else ("recordings" if lengths else "pictures", ["same label"])
    header = [kind, "largest difference", "relative", *labels]
    _table(header, [row[: len(header)] for row in rows])
    if lengths:
        print("of " + ", ".join(f"{length} samples: relative {value:.2e}" for length, value in lengths.items()))
    if sizes := report.get("sizes"):
        print("of " + ", ".join(f"{size} pixels: relative {value:.2e}" for size, value in sizes.items()))
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB), compared with torch on {report['pictures']}")


def _exported_texts(path: Path, report: dict[str, Any]) -> None:
    rows = []
    for name, found in report["files"].items():
        file = path.with_name(name)
        size = f"{file.stat().st_size / 1e6:.1f} MB"
        rows.append([str(file), size, f"{found['max_abs']:.2e}", f"{found['max_rel']:.2e}", f"{found['top1']:.2%}"])
    _table(["file", "size", "largest difference", "relative", "same token"], rows)
    print(f"compared with torch on {report['texts']}; {report['same_tokens']} greedy tokens of onnxruntime are torch's")
    print(f'to try: {Path(sys.executable).name} -m dlzoo.export.play {shlex.quote(str(path.parent))} "PROMPT"')


def _consolidate(arguments: list[str]) -> None:
    from dlzoo.consolidate import consolidate

    parser = _parser("consolidate", run="the run's directory, or a checkpoint in it")
    parser.add_argument("--last", action="store_true", help="the last weights, not the best")
    args = _parse(parser, arguments)
    path, facts = consolidate(args.run, "last" if args.last else "best")
    print(f"{path}: {facts['tensors']} tensors, {facts['values']:,} values, {facts['bytes'] / 1e6:.1f} MB")


def _list(arguments: list[str]) -> None:
    from dlzoo import ending, rundir, zoo

    groups = {f"{name}s": name for name in ("model", "experiment", "task", "optimizer", "scheduler", "trainer", "logger")}
    groups |= {name: name for name in ("data", "augment", "callbacks", "debug")} | {"searches": "hparams_search"}
    parser = polite(argparse.ArgumentParser(prog="dlzoo list", description=VERBS["list"]))
    parser.add_argument("what", nargs="?", default="models", choices=[*groups, "runs"])
    parser.add_argument("pattern", nargs="?", default="*", help='such as "*resnet*"')
    parser.add_argument("--dir", default="runs", help="the folder of the runs (runs)")
    parser.add_argument("--config-dir", help="a folder of your own configs")
    args = parser.parse_args(arguments)
    if args.what == "runs":
        rows = []
        for found in rundir.runs(Path(args.dir)):
            try:
                metrics = found.metrics
            except (OSError, ValueError):  # it stopped before its summary
                metrics = {}
            shown = next((f"{name} {metrics[name]:.4f}" for name in ending.SHOWN if name in metrics), "")
            rows.append([str(found.dir), found.status, shown])
        _table(["run", "status", "result"], rows)
        return
    group = groups[args.what]
    rows = []
    for name in zoo.list_configs(group, args.pattern, args.config_dir):
        path = next(p for folder in zoo.config_dirs(args.config_dir) if (p := folder / group / f"{name}.yaml").is_file())
        rows.append([name, zoo.leading_comment(path.read_text(encoding="utf-8")).partition(" python train.py")[0]])
    _table([args.what, ""], rows)


def _doctor(arguments: list[str]) -> None:
    polite(argparse.ArgumentParser(prog="dlzoo doctor", description=VERBS["doctor"])).parse_args(arguments)
    from dlzoo import doctor

    for line in doctor.examine():
        print(line, flush=True)


# --- the screen


def _table(header: list[str], rows: list[list[str]]) -> None:
    """Columns that line up; plain text, so that it can be piped and searched."""
    if not rows:
        print("nothing")
        return
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in ([header] if any(header) else []) + rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _parser(verb: str, **positionals: str) -> argparse.ArgumentParser:
    parser = polite(argparse.ArgumentParser(prog=f"dlzoo {verb}", description=VERBS[verb], allow_abbrev=False))
    for name, text in positionals.items():
        parser.add_argument(name, help=text)
    parser.add_argument("overrides", nargs="*", help="config values to change: key=value")
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    args = parser.parse_intermixed_args(arguments)
    for override in args.overrides:
        if "=" not in override:
            raise ConfigError(f"{override!r} is not key=value", where=parser.prog, fix=f"{parser.prog} --help")
    return args


def _fail(error: DlzooError, code: int, cause: BaseException | None = None) -> int:
    if os.environ.get("DLZOO_DEBUG"):
        traceback.print_exception(cause or error)
    from dlzoo.redact import redact

    lines = redact(str(error)).splitlines()
    print("\n".join(["error: " + lines[0], *lines[1:12]]), file=sys.stderr)
    return code


def _in_our_words(error: Exception) -> DlzooError | None:
    """An error of another library that a user can put right."""
    if is_out_of_memory(error):
        return out_of_memory(error)
    if type(error).__module__.startswith("yaml"):
        from dlzoo.mistakes import bad_yaml

        return bad_yaml(error, "config.yaml of the run")
    if isinstance(error, OSError) and error.errno in (28, 122, 27, 30, 13):  # full, quota, too large, read-only, forbidden
        return StorageError(f"can not write: {error.strerror}", where=str(error.filename), fix="run_dir=PATH on another disk")
    return None


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    return f"{Path(frame.filename).name} line {frame.lineno}" if frame else ""
