"""RESULTS.md and what it is made from: what was measured, by which command, where.

    python scripts/results.py add runs/digits_resnet/*    records of finished runs -> results/runs.jsonl
    python scripts/results.py add plain.json bench.json   what plain_loop.py and bench.py wrote with --out
    python scripts/results.py render [--check]            RESULTS.md; --check only says whether it is up to date

A run is taken only when its command still makes its config, so that a row is a command to be tried. Nothing is typed by hand
but results/notes.md. Paths of the machine are left out.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import results_engine

from dlzoo import zoo
from dlzoo.errors import ConfigError, DlzooError
from dlzoo.rundir import Run, find

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results"
Record = dict[str, Any]

# what a run is judged by: the first of these that it has all of
RESULTS = (
    ("test/miou",),
    ("test/acc",),
    ("test/bleu", "test/chrf"),
    ("test/mae", "test/rmse", "test/mase"),
    ("test/mae",),
    ("test/loss", "test/ppl", "test/bpc"),
    ("test/loss",),
    ("val/acc",),
    ("val/loss",),
)
# what stands behind a figure, its digits and what it is multiplied by; others have their name before them
UNITS = {
    "miou": ("% mIoU", 2, 100),
    "acc": ("% accuracy", 2, 100),
    "bleu": ("BLEU", 2, 1),
    "chrf": ("chrF", 2, 1),
}

# what a run sets for its place and its name alone: no part of what was measured
PLACES = ("run_dir", "runs_dir", "data_dir", "logger", "tags", "ckpt_path", "callbacks.screen")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    adding = verbs.add_parser("add", help="take up runs, or files of plain_loop.py and bench.py")
    adding.add_argument("sources", nargs="+", type=Path, metavar="RUN|FILE")
    rendering = verbs.add_parser("render", help="write RESULTS.md")
    rendering.add_argument("--check", action="store_true", help="write nothing; exit 1 where RESULTS.md is not up to date")
    args = parser.parse_args(arguments)
    try:
        if args.verb == "add":
            for source in args.sources:
                print(f"{source}: {add(source)}")
            return 0
    except DlzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    path, text = ROOT / "RESULTS.md", render(FOLDER)
    if args.check:
        return 0 if path.is_file() and path.read_text(encoding="utf-8") == text else 1
    path.write_text(text, encoding="utf-8")
    return 0


# --- taking up


def add(source: Path, folder: Path = FOLDER) -> str:
    """Takes up one run or file; says what became of it.

    Raises:
        ConfigError: it is none of the three, is not finished, or its command makes another config.
    """
    folder.mkdir(exist_ok=True)
    if source.is_file() and source.suffix == ".json":
        content = json.loads(source.read_text(encoding="utf-8"))
        if "rows" in content and "machine" in content:
            content["machine"] = machine(content["machine"])
            name = source.name if source.name.startswith("bench") else "bench.json"  # a file for each set of goals
            (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return f"results/{name}"
        if "test_acc_best" in content:
            return _append(folder / "plain.jsonl", content | {"machine": machine(content["machine"])})
        raise ConfigError(f"{source.name} is of neither plain_loop.py nor bench.py", where=str(source))
    return _append(folder / "runs.jsonl", run_record(find(source)))


def run_record(run: Run) -> Record:
    """What is kept of a run.

    Raises:
        ConfigError: it is not finished, was resumed, or its command makes another config.
    """
    summary, config = run.summary, run.config
    environment = json.loads((run.dir / "environment.json").read_text(encoding="utf-8"))
    if summary["status"] != "finished":
        raise ConfigError(f"the run is {summary['status']}", where=str(run.dir), fix=f"dlzoo resume {run.dir}")
    if config["ckpt_path"]:
        raise ConfigError("the run was resumed: no one command makes it, and its times are of its parts", where=str(run.dir))
    given = zoo.read_yaml((run.dir / "overrides.yaml").read_text(encoding="utf-8"))
    kept = [override for override in given if _key(override) not in (*PLACES, "seed", "experiment")]
    named = next((override.partition("=")[2] for override in given if _key(override) == "experiment"), None)
    _verify(run, config, ([f"experiment={named}"] if named else []) + kept)
    gpus = environment["gpus"] if config["trainer"]["accelerator"] != "cpu" else []
    return {
        "experiment": config["name"],
        "overrides": [_without_path(override) for override in kept],
        "seed": summary["seed"],
        "epochs": summary["epochs"],
        "metrics": {name: round(value, 6) for name, value in summary["metrics"].items() if name.startswith(("val/", "test/"))},
        "training_seconds": summary["training_seconds"],
        "total_seconds": summary["total_seconds"],
        "samples_per_second": summary["samples_per_second"],
        "parameters": summary["parameters"],
        "settings": _settings(config, summary),
        "edition": summary["edition"],
        "devices": summary["devices"],
        "machine": machine(environment | {"gpus": gpus}),
    }


def machine(environment: Mapping[str, Any]) -> Record:
    """Of environment.json, what a table says: no path, no command."""
    return {
        "date": environment["time"][:10],
        "processor": environment["processor"],
        "cores": environment["cores"],
        "threads": environment["torch_threads"],
        "gpus": environment["gpus"],
        "python": environment["python"],
        "torch": environment["packages"]["torch"],
        "lightning": environment["packages"]["lightning"],
        "commit": environment["commit"],
    }


def _settings(config: Mapping[str, Any], summary: Mapping[str, Any]) -> Record:
    """In the words of plain_loop.py, so that a run finds its like."""
    return {
        "data": config["data"]["_target_"].rsplit(".", 1)[-1],
        "model": summary["model"],
        "batch_size": summary["batch_size"],
        "lr": config["optimizer"].get("lr"),
        "weight_decay": config["optimizer"].get("weight_decay"),
        "schedule": config["scheduler"]["_target_"].rsplit(".", 1)[-1],
        "precision": {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}.get(
            summary["precision"], summary["precision"]
        ),
    }


def _verify(run: Run, config: Mapping[str, Any], overrides: list[str]) -> None:
    """A row is a promise that its command makes this run."""
    from dlzoo.config import check, compose

    places = [f"{key}={config[key]}" for key in ("seed", "data_dir", "runs_dir", "run_dir")]
    now, then = _flat(check(compose(*overrides, *places))), _flat(config)
    changed = [
        f"{key} is {now[key]!r} there and {then[key]!r} in the run"
        for key in now.keys() & then.keys()
        if now[key] != then[key] and not key.startswith(PLACES)
    ]
    if changed:
        raise ConfigError(
            f"the command of the run makes another config now: {'; '.join(sorted(changed)[:3])}",
            where=f"train.py {' '.join(overrides)}",
            fix="run it again",
        )


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {key: value for name, part in node.items() for key, value in _flat(part, f"{prefix}.{name}".lstrip(".")).items()}


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _without_path(override: str) -> str:
    key, _, value = override.partition("=")
    value = value.strip("'\"")
    return f"{key}={Path(value).name}" if value.startswith(("/", "~")) else override


def _append(path: Path, record: Record) -> str:
    """Adds a line; one that stands already is not repeated."""
    line = json.dumps(record, ensure_ascii=False)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if line in before.splitlines():
        return "is there already"
    path.write_text(before + line + "\n", encoding="utf-8")
    return f"results/{path.name}"


def read(path: Path) -> list[Record]:
    """The records of a file; [] where there is none."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


# --- rows


def groups(records: Iterable[Record]) -> list[list[Record]]:
    """Runs that differ in nothing but the seed: one edition of the data, one kind of device, one number of threads.

    Of a seed the last record counts.
    """
    found: dict[tuple[str, ...], dict[int, Record]] = {}
    for record in records:
        facts = record["machine"]
        key = (record["experiment"], *record["overrides"], record["edition"], *facts["gpus"], str(facts["threads"]))
        found.setdefault(key, {})[record["seed"]] = record
    return [list(group.values()) for _, group in sorted(found.items())]


def command(record: Record) -> str:
    """What to type for this record, without the seed."""
    experiment = [] if record["experiment"] == "digits_resnet" else [f"experiment={record['experiment']}"]
    return " ".join(["python train.py", *experiment, *record["overrides"]])


def result(group: Sequence[Record]) -> str:
    """What a run is judged by, with its name: mean, and the standard deviation where there is more than one seed."""
    shared = [name for name in group[0]["metrics"] if all(name in record["metrics"] for record in group)]
    names = list(next((names for names in RESULTS if set(names) <= set(shared)), ()))
    if "test/mae" in names:  # and what was to be beaten, such as test/mae_persistence
        names += [name for name in shared if name.startswith("test/mae_")]
    return ", ".join(_measured(group, name) for name in names) or "none"


def _measured(group: Sequence[Record], name: str) -> str:
    """One metric: 91.25 +- 0.16 % accuracy, 28.30 BLEU, loss 1.8970 +- 0.0030."""
    stage, _, what = name.partition("/")
    unit, digits, factor = UNITS.get(what, ("", 3 if stage == "test" and what != "loss" else 4, 1))
    text = spread([record["metrics"][name] * factor for record in group], digits)
    told = f"{text} {unit}" if unit else f"{what.replace('_', ' of ')} {text}"
    return told if stage == "test" else f"{told} ({stage})"


def spread(values: Sequence[float], digits: int) -> str:
    """91.25 +- 0.16, or 91.25 for one value alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def paper(experiment: str) -> str:
    """The figure that the head of an experiment's file takes from its paper, or ""."""
    path = zoo.config_dir() / "experiment" / f"{experiment}.yaml"
    comment = zoo.leading_comment(path.read_text(encoding="utf-8")) if path.is_file() else ""
    match = re.search(r"Paper: (.+?)(?:\.\s|\.?$)", comment)
    return match[1] if match else ""


def _took(group: Sequence[Record], key: str) -> str:
    seconds = statistics.fmean(record[key] for record in group)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _machine_words(record: Record) -> str:
    facts = record["machine"]
    if facts["gpus"]:
        return f"{record.get('devices', 1)} x {facts['gpus'][0]}"
    name = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@.*", "", facts["processor"])
    return f"{' '.join(name.split()) or 'CPU'}, {facts['threads']} of {facts['cores']} cores"


def _distinct(group: Sequence[Record], say: Any) -> str:
    return ", ".join(dict.fromkeys(str(say(record)) for record in group))


def _commit(record: Record) -> str:
    commit = record["machine"]["commit"] or "none"
    return commit[:8] + ("+" if commit.endswith("+") else "")


def _where(facts: Record) -> str:
    """A machine, the versions and the commit; of environment.json, or of what `machine` kept of it."""
    facts = facts if "torch" in facts else machine(facts)
    record = {"machine": facts}
    return f"{_machine_words(record)}, torch {facts['torch']}, commit {_commit(record)}, {facts['date']}"


# --- RESULTS.md


def render(folder: Path) -> str:
    """RESULTS.md, from the files of a folder."""
    runs, plain = read(folder / "runs.jsonl"), read(folder / "plain.jsonl")
    notes: list[str] = []  # editions of data, numbered as they come
    parts = [
        "# Results",
        "Generated by `python scripts/results.py render` from what runs left behind; change nothing here by hand.\n"
        "`python scripts/results.py add RUN` adds a run. A figure is the mean over seeds, +- their standard deviation.\n"
        "The weights are those that were best in validation; the test split is looked at once.\n"
        "`+` behind a commit: files differed from it.",
        "## Trained models",
        _accuracy_table(groups(runs), notes) if runs else "No run has been taken up yet.",
        "\n".join(f"[{number}] {note}." for number, note in enumerate(notes, 1)),
        "## Beside a plain loop",
        "The same network, data, order, augmentation, schedule and precision in a bare PyTorch loop (`scripts/plain_loop.py`).",
        _plain_table(plain, runs) if plain else "Not measured yet.",
        "## Going on after kill -9",
        results_engine.kill_table(folder / "kills.json", table, _where),
        "## The same training on several devices",
        results_engine.device_table(folder / "devices.json", table, _where),
        "## Speed",
        "\n\n".join(map(_bench_table, sorted(folder.glob("bench*.json"))))
        or "Not measured yet: `python scripts/bench.py --out bench.json`.",
        "## Not measured",
        (folder / "notes.md").read_text(encoding="utf-8").strip() if (folder / "notes.md").is_file() else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _accuracy_table(found: list[list[Record]], notes: list[str]) -> str:
    rows = []
    for group in found:
        first = group[0]
        rows.append(
            [
                f"`{command(first)}`",
                f"{first['settings']['model']}, epochs: {_distinct(group, lambda record: record['epochs'])}",
                str(len(group)),
                result(group),
                paper(first["experiment"]) or "-",
                _took(group, "training_seconds"),
                _took(group, "total_seconds"),
                f"{statistics.fmean(record['samples_per_second'] for record in group):,.0f}",
                f"{_distinct(group, _machine_words)}, {first['settings']['precision']}",
                _distinct(group, lambda record: record["machine"]["torch"]),
                _distinct(group, _commit),
                _edition(first["edition"], notes),
            ]
        )
    head = "command, model, seeds, test, paper, training, whole run, samples/s, machine, torch, commit, data"
    return table(head.split(", "), rows)


def _edition(edition: str, notes: list[str]) -> str:
    if not edition:
        return "original"
    if edition not in notes:
        notes.append(edition)
    return f"[{notes.index(edition) + 1}]"


def _plain_table(plain: list[Record], runs: list[Record]) -> str:
    like = ("lr", "weight_decay", "schedule", "precision")
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in plain:
        settings = record["settings"]
        key = (settings["epochs"], *(settings[name] for name in like), settings["threads"], record["edition"])
        found.setdefault(key, []).append(record)
    rows = []
    for (epochs, *settings, _, edition), group in found.items():
        words = f"{epochs} epochs, {settings[2]}, lr {settings[0]:g}, {settings[3]}"
        values = [100 * record["test_acc_best"] for record in group]
        rows.append([words, "plain loop", str(len(group)), f"{spread(values, 2)} % accuracy", *_speed(group)])
        same = [
            record
            for record in runs
            if (record["settings"]["data"], record["settings"]["model"]) == ("Cifar10", "resnet20")
            and record["settings"]["batch_size"] == 128
            and (record["epochs"], *(record["settings"][name] for name in like)) == (epochs, *settings)
            and record["edition"] == edition
        ]
        for ours in groups(same):
            rows.append([f"`{command(ours[0])}`", "dlzoo", str(len(ours)), result(ours), *_speed(ours)])
    return table(["settings", "by", "seeds", "test", "training", "samples/s", "machine", "commit"], rows)


def _speed(group: Sequence[Record]) -> list[str]:
    rate = statistics.fmean(record["samples_per_second"] for record in group)
    return [_took(group, "training_seconds"), f"{rate:,.0f}", _distinct(group, _machine_words), _distinct(group, _commit)]


def _bench_table(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    verdict = {True: "met", False: "missed", None: ""}
    rows = [
        [
            row["what"],
            number(row["ours"]),
            "" if row["peer"] is None else number(row["peer"]),
            row["unit"],
            number(row["value"]),
            row["bound"],
            verdict[row["met"]],
        ]
        for row in content["rows"]
    ]
    goals = " ".join(dict.fromkeys(row["goal"] for row in content["rows"]))
    head = (
        f"`python scripts/bench.py {goals}`, median of {content['repeats']}; processor time, the contenders in turn. "
        f"{_where(content['machine'])}."
    )
    return head + "\n\n" + table(["what", "ours", "other", "unit", "value", "bound", ""], rows)


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.4f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
