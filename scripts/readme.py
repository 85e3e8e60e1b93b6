"""The tables of README.md that the config tree, the command line and results/ already know.

python scripts/readme.py            writes what stands between <!-- models --> and <!-- /models -->, and the other marks
python scripts/readme.py --check    writes nothing; exits 1 where README.md is not up to date
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import results
from dlzoo import zoo
from dlzoo.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where README.md is not up to date")
    args = parser.parse_args(arguments)
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = written(before)
    if args.check:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


def written(text: str) -> str:
    """The text with its marked blocks written anew.

    Raises:
        ValueError: a mark has no end, or no table of that name exists.
    """
    tables = {"models": models, "experiments": experiments, "verbs": verbs}
    for name in re.findall(r"^<!-- ([a-z]+) -->$", text, re.MULTILINE):
        if name not in tables:
            raise ValueError(f"there is no table {name!r} for README.md")
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(start)
        _, found, tail = rest.partition(end)
        if not found:
            raise ValueError(f"README.md lacks {end}")
        text = f"{head}{start}{tables[name]()}\n{end}{tail}"
    return text


def models() -> str:
    """Every model of the catalogue: name, size, what the head of its file says."""
    rows = []
    for name in zoo.list_models():
        info = zoo.model_info(name)
        rows.append([f"`{name}`", f"{info.parameters:,}", info.summary])
    return results.table(["model", "parameters", ""], rows)


def experiments() -> str:
    """Every experiment: what it claims, its command, what we reached."""
    reached = results.groups(results.read(ROOT / "results" / "runs.jsonl"))
    rows = []
    for path in sorted((zoo.config_dir() / "experiment").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        what = zoo.leading_comment(text).partition(" python train.py")[0]
        command = next(line for line in text.splitlines() if line.startswith("#   python train.py")).partition("train.py")[2]
        what = re.sub(r"\s*(Ours: see RESULTS\.md|Not measured yet: ).*$", "", what.strip())
        rows.append([what, f"`python train.py{command.rstrip()}`", figure(path.stem, reached)])
    return results.table(["what", "command", "ours, on the test split"], rows)


def figure(experiment: str, reached: list[list[results.Record]]) -> str:
    """What was reached with the command as it stands; else with the overrides of the longest run."""
    own = [group for group in reached if group[0]["experiment"] == experiment]
    if not own:
        return "not measured yet"
    best = max(own, key=lambda group: (not group[0]["overrides"], group[0]["epochs"]))
    first = best[0]
    text = f"{results.result(best)} ({len(best)} seed{'s' * (len(best) > 1)})"
    if first["overrides"]:
        text += f" with `{' '.join(first['overrides'])}`"
    return text + (f"; {first['edition'].partition(':')[0]}" if first["edition"] else "")


def verbs() -> str:
    """What `dlzoo` can do, in the words of its own help."""
    return results.table(["", "", ""], [[f"`{name}`", *_split(text)] for name, text in VERBS.items()])


def _split(text: str) -> list[str]:
    what, _, example = text.partition(": ")
    return [what, f"`{example}`" if example.startswith("dlzoo ") else example]


if __name__ == "__main__":
    sys.exit(main())
