"""docs/reliability.md: what a run survives, row by row, from the results of the tests that prove it.

python scripts/reliability.py run        runs the tests of every row (minutes) and writes results/reliability.json
python scripts/reliability.py render     writes docs/reliability.md from it
python scripts/reliability.py --check    exits 1 where docs/reliability.md is not what it would write
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "results" / "reliability.json", ROOT / "docs" / "reliability.md"

# row -> the fault, and what a run does; the tests are those named test_row_NN... in tests/faults
ROWS: dict[int, tuple[str, str]] = {
    1: ("kill -9 in the middle of an epoch", "`dlzoo resume`: the same losses and weights, bit for bit"),
    2: ("the same, resumed with another number of workers", "bit for bit"),
    3: (
        "SIGTERM: training, validation, a save, warming up, the test",
        "saved within a step, exit 143; loader processes wait for it",
    ),
    4: ("Ctrl-C, once and twice", "the step is finished and saved, pictures, the command to resume, exit 130; twice: at once"),
    5: ("kill -9 during a save", "the checkpoint before it is whole; what was half written is swept away"),
    6: (
        "a truncated, empty or changed newest checkpoint",
        "named, kept as *.bad; the one before it is used; none good: exit 6",
    ),
    7: (
        "a full disk",
        "told before the first epoch where it can be; later one warning a failed save, the third in a row exit 7",
    ),
    8: ("a directory that can not be written", "exit 7 before the first epoch"),
    9: ("a loss that is NaN or infinite", "exit 4 before the update, with step, rate and last finite loss"),
    10: ("one such batch", "`callbacks.finite.on_nonfinite=skip`: left out and listed, at most three"),
    11: ("out of memory", "exit 5 with three overrides that fit the run"),
    12: ("a corrupt picture", "exit 3 with its file and index"),
    13: ("an unknown key", "exit 2 with the right one"),
    14: ("a wrong type, range or choice", "exit 2 with what was expected"),
    15: ("data and model that do not fit", "exit 2 before the first step, with both numbers"),
    16: ("a config that would run something", "exit 9, nothing run; 40 payloads more in tests/test_security.py"),
    17: ("a checkpoint that would run something", "exit 9, nothing run"),
    18: ("a hostile safetensors header", "a damaged cache, made again"),
    19: ("an archive that would write outside", "exit 9, nothing written"),
    20: ("a download with another hash", "exit 3 with both hashes, the file removed"),
    21: (
        "a dropped link, no network",
        "going on where it broke off, the next mirror, never http; DLZOO_OFFLINE=1: exit 3 at once",
    ),
    22: ("two downloads of the same file", "one fetches, the others wait"),
    23: ("two runs in one directory", "exit 8 with the process; a dead one holds nothing"),
    24: ("a process of several dies", "the others end within a minute, its number is told, the run goes on"),
    25: ("a process of several hangs", "likewise"),
    26: ("data that do not divide by the processes", "no wait, every sample counted once"),
    27: ("resumed on another number of processes", "the same batches, losses within 1e-5"),
    28: ("no answer from a logger's server", "kept offline, the command to send it later"),
    29: ("a loader process dies", "exit 3 with the file and index it was at; no process stays"),
    30: ("requeued by SLURM; the same command again", "finds its run by the job's number; `ckpt_path=auto`"),
    31: ("the same seed twice", "the same bits"),
    32: ("another seed", "another run"),
    33: ("memory over 5,000 steps", "grows by less than 20 MB"),
    34: ("files and threads over twelve runs", "do not grow"),
    36: ("a checkpoint of another model", "exit 6: what is missing, unknown, of another shape"),
    37: ("a config changed on resume", "model, data, seed: exit 2; the rate: allowed, logged, used"),
    38: ("strange paths, another language", "points stay points"),
    39: ("an interrupted sweep", "goes on with what is left"),
    40: ("an export that differs", "exit 4, no file left"),
    41: ("a package that is not installed", "exit 2, one line that installs it"),
    42: ("no GPU", "auto never fails; asked for: exit 2"),
    43: ("secrets in the environment", "nowhere under the run's directory"),
    44: ("evaluation by itself", "the same metrics as in training"),
    45: ("malicious versions", "excluded"),
}
LATER = {
    35: "a checkpoint of an earlier release: there has been no release yet; the first one leaves a fixture",
}
PARTS_LATER = {
    11: "`oom=shrink` (halving the batch by itself) is not there: a run that changes its own batch would not be the one asked for",
    12: "`data.on_bad=skip` is not there yet; it comes with the data sets that need it",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="render", choices=["run", "render"])
    parser.add_argument("--junit", nargs="*", type=Path, default=[], help="results of pytest --junitxml, in place of a run")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is not up to date")
    args = parser.parse_args()
    if args.what == "run":
        RESULTS.write_text(json.dumps(measured(args.junit), indent=1) + "\n", encoding="utf-8")
    page = rendered(json.loads(RESULTS.read_text(encoding="utf-8")))
    if args.check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page)
    PAGE.write_text(page, encoding="utf-8")
    return 0


def measured(reports: list[Path]) -> list[dict[str, str]]:
    """A row for each test of tests/faults, from reports, or from running them all, slow ones too."""
    with tempfile.TemporaryDirectory() as folder:
        if not reports:
            reports = [Path(folder) / "report.xml"]
            words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "tests/faults", "-m", "not gpu"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([*words, f"--junitxml={reports[0]}"], cwd=ROOT, env=environment)
        cases = [case for report in reports for case in ET.parse(report).getroot().iter("testcase")]
    cases = [case for case in cases if rows_of(str(case.get("name")))]
    found = []
    for case in cases:
        kinds = {child.tag for child in case}
        result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found.append({"test": str(case.get("name")), "result": result, "date": date.today().isoformat()})
    return sorted(found, key=lambda row: row["test"])


def rows_of(test: str) -> list[int]:
    """The rows that a test's name says it proves."""
    head = test.partition("[")[0].split("_")
    if head[:2] in (["test", "row"], ["test", "rows"]):
        return [int(word) for word in head[2:5] if word.isdigit()]
    return []


def rendered(results: list[dict[str, str]]) -> str:
    """The page."""
    lines = [HEAD, "", "| row | what happens | what a run does | tests | result |", "| ---: | --- | --- | --- | --- |"]
    for row, (fault, answer) in ROWS.items():
        tests = [result for result in results if row in rows_of(result["test"])]
        names = dict.fromkeys(result["test"].partition("[")[0] for result in tests)
        counts = {kind: sum(result["result"] == kind for result in tests) for kind in ("passed", "failed", "skipped")}
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "not run"
        day = max((result["date"] for result in tests), default="")
        lines.append(f"| {row} | {fault} | {answer} | {', '.join(f'`{name}`' for name in names)} | {said} {day} |")
    lines += ["", "Not there yet:", ""]
    lines += [f"- Row {row}: {why}." for row, why in sorted({**LATER, **PARTS_LATER}.items())]
    return "\n".join(lines) + "\n"


HEAD = """# What a run survives

This page is written by `python scripts/reliability.py render` from the results of `tests/faults`; the numbers of the rows are those
of the project's table of faults. Each row is at least one test with a real process, a real signal and a real checkpoint where that
is what it is about.

## Exactly the same, and where

A checkpoint is only saved between two optimizer steps. It holds the weights, the averaged weights, the optimizer, the schedule,
the AMP scaler, the loop's counters, the place in the data, the random numbers of every library and process, what has been added up
for the next row of metrics.csv, and the memory of early stopping and of the best checkpoint. The order of the data and their
augmentation are pure functions of (seed, epoch, index).

| where | what a resumed run is, compared with one that nobody stopped | proved by |
| --- | --- | --- |
| CPU, fp32 | the same bits: losses, metrics, weights, optimizer state | rows 1 to 7; `python scripts/kill_test.py`: RESULTS.md |
| CPU, another number of workers | the same bits | row 2 |
| CPU, bf16 autocast | the same bits, on the same machine and versions | `tests/test_exactness.py` |
| CPU, two processes, as many as before | the same bits | `tests/test_exactness.py` |
| another number of processes | the same batches, losses within 1e-5 relative, for networks without dropout, MixUp and batch norm | row 27 |
| one GPU, `trainer.deterministic=true` | meant to be the same bits; not measured: no GPU was at hand | a test marked `gpu` |
| a GPU with `benchmark` or atomics | the same batches, losses that differ by rounding; not measured | a test marked `gpu` |

With dropout, each process draws its own masks from its own random numbers; they are in the checkpoint, one state a process.

## Which checkpoint

`checkpoints/last.ckpt` is the newest, `previous.ckpt` the one before it, `best.ckpt` the best in validation;
`callbacks.checkpoint.keep_every_n_epochs=10` keeps each tenth epoch's. They are written under another name, flushed to the disk
and renamed, load with `torch.load(path, weights_only=True)`, and are checked byte for byte (CRC-32) before a run goes on from one.
`callbacks.checkpoint.every_seconds=60` and `every_n_steps` say how much work a kill -9 can cost; SIGTERM and Ctrl-C cost none.

## Faults on purpose

`DLZOO_FAULT` lets one happen at a place that you name, to see what your own config loses:

```bash
DLZOO_FAULT=kill9@step=37 python train.py run_dir=/tmp/victim
dlzoo resume /tmp/victim
```

Faults are `kill9`, `sigterm`, `sigint`, `sigstop`, `exception`, `oom`, `nan` and `enospc`; places are `step=N`, `val=N`, `test=N`,
`save=N` (with `:bytes=50%`) and `sample=N`. `:rank=1` hits one process of several. Several are separated by commas.

## SLURM

```bash
#SBATCH --requeue --signal=TERM@120 --open-mode=append
srun python train.py experiment=cifar10_resnet trainer=ddp
```

SIGTERM is saved within a step, and the job ends with 143. When SLURM starts it again, the same command finds the run that this job
began, by its number. For a time limit, let the batch script requeue the job itself: `srun ... || [ $? -ne 143 ] || scontrol requeue
$SLURM_JOB_ID`.

## The table"""


if __name__ == "__main__":
    sys.exit(main())
