"""Whole trainings beside plain loops: G2 of bench.py, and its LSTM. What counts is how good the network gets, and at what cost.

Each training is a process of its own, from its start to its test; its processor seconds are all of them, the imports too. Both
are given the same text to train on, and are tested on each character of its last tenth. Round n has seed n - 1.
"""

import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench_startup import program
from bench_timing import Row

LEAST = 3  # seeds
RUN = ("trainer=cpu_fast", "data.val_fraction=0", "task.sample_length=0")  # a plain loop neither validates nor writes samples


def goal_2(repeats: int) -> Iterator[Row]:
    """`shakespeare_gpt` beside nanoGPT's recipe for a CPU."""
    yield from _recipe("G2", "gpt", repeats, least_loss="<= 0.01", least_seconds="<= 0.55")


def lstm(repeats: int) -> Iterator[Row]:
    """`shakespeare_lstm` beside nn.LSTM in a plain loop."""
    yield from _recipe("lstm", "lstm", repeats, least_loss="<= 0", least_seconds="")


def _recipe(goal: str, network: str, repeats: int, least_loss: str, least_seconds: str) -> Iterator[Row]:
    ours, peer = [], []
    for seed in range(max(repeats, LEAST)):
        ours.append(_run(f"shakespeare_{network}", seed))
        peer.append(_plain(network, seed))
    losses, others = ([loss for loss, _ in runs] for runs in (ours, peer))
    (mean, sd), (other, other_sd) = ((statistics.mean(some), statistics.stdev(some)) for some in (losses, others))
    what = f"shakespeare_{network} beside a plain loop, {len(ours)} seeds: test loss (sd {sd:.4f} and {other_sd:.4f})"
    yield Row(goal, what, mean, other, "nats", mean - other, least_loss)
    seconds, more = (statistics.median([value for _, value in runs]) for runs in (ours, peer))
    yield Row(goal, "the same, the whole process", seconds, more, "s CPU", seconds / more, least_seconds)


def _run(experiment: str, seed: int) -> tuple[float, float]:
    """The test loss and the processor seconds of dlzoo's training."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = f"{folder}/run"
        seconds = program("train.py", f"experiment={experiment}", *RUN, f"seed={seed}", f"run_dir={run_dir}")()
        summary = json.loads(Path(run_dir, "summary.json").read_text(encoding="utf-8"))
    return summary["metrics"]["test/loss"], seconds


def _plain(network: str, seed: int) -> tuple[float, float]:
    """Those of the plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.json")
        seconds = program("scripts/plain_language.py", network, "--seed", str(seed), "--out", str(path))()
        return json.loads(path.read_text(encoding="utf-8"))["test_loss"], seconds
