"""dlzoo's speed beside what one would run instead, each figure with the bound that it has to keep.

    python scripts/bench.py                     every goal, but for the compiled network
    python scripts/bench.py G4 G10 --repeats 7  some of them
    python scripts/bench.py G8 --compile        torch.compile too: minutes when its cache is cold

Contenders take turns in one process on one thread. What counts is the processor time of the process, or of the processes that
it starts, and its median over the rounds: a busy neighbour does not count, but it takes cache and clock, so that beside one the
ratios hold and the bounds in seconds (the overhead of G4, and G10 to G12) may not. The exit code is 1 if a bound is missed.
G2 and lstm are whole trainings, of one seed a round, three at least, and need tiny Shakespeare in DLZOO_DATA.
G6, G7 and G13 need torchvision, timm and onnxruntime, and some minutes; G5, G8, G9 and engine need CIFAR-10 in DLZOO_DATA.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import bench_data
import bench_overhead
import bench_recipes
import bench_startup
import bench_training
import bench_vision
from bench_timing import Row, table


def main() -> int:
    goals: dict[str, Callable[..., Iterator[Row]]] = {
        "G2": bench_recipes.goal_2,
        "lstm": bench_recipes.lstm,
        "G4": bench_overhead.goal_4,
        "G5": bench_training.goal_5,
        "G6": bench_vision.goal_6,
        "G7": bench_vision.goal_7,
        "engine": bench_training.engine,
        "G8": bench_training.goal_8,
        "G9": bench_data.goal_9,
        "G10": bench_startup.goal_10,
        "G11": bench_startup.goal_11,
        "G12": bench_startup.goal_12,
        "G13": bench_vision.goal_13,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("goals", nargs="*", metavar="GOAL", help=f"{', '.join(goals)}; all of them if left out")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds (5)")
    parser.add_argument("--compile", action="store_true", help="G8 with torch.compile too: minutes when its cache is cold")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the rows and the machine as JSON")
    args = parser.parse_args()
    if unknown := set(args.goals) - set(goals):
        parser.error(f"there is no goal {', '.join(sorted(unknown))}; there are {', '.join(goals)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: spinning threads on a shared machine measure the neighbours
    rows = []
    for goal in args.goals or goals:
        options = {"compiled": args.compile} if goal == "G8" else {}
        for row in goals[goal](args.repeats, **options):
            rows.append(row)
            print("  ".join(cell for cell in row.cells() if cell), flush=True)
    print("\n" + table(rows))
    if args.out:
        from dlzoo.rundir import environment

        found = [asdict(row) | {"met": row.met} for row in rows]
        args.out.write_text(json.dumps({"repeats": args.repeats, "rows": found, "machine": environment()}, indent=2) + "\n")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
