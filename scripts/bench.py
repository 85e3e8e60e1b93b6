"""dlzoo's speed beside what one would run instead, each with the bound that it has to keep.

    python scripts/bench.py                     every goal, but for the compiled network
    python scripts/bench.py G4 G10 --repeats 7  some of them
    python scripts/bench.py G8 --compile        torch.compile too: minutes when its cache is cold

Contenders take turns in one process on one thread; what counts is the processor time of the process, or of the processes that it
starts (a busy neighbour does not count, though it costs cache), and its median over the rounds. bench_training.py has G4, G5 and
G8, bench_data.py G9. G5, G8 and G9 need CIFAR-10 in DLZOO_DATA.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = "s CPU"


@dataclass(frozen=True)
class Row:
    """One goal's measurement.

    Args:
        goal: its number.
        what: what was measured.
        ours: dlzoo's figure.
        peer: the other's; None where there is no other.
        unit: of both.
        value: what the bound is about: a ratio, a difference, or `ours`.
        bound: such as ">= 2.5" or "<= 0.35"; "" where the row only informs.
    """

    goal: str
    what: str
    ours: float
    peer: float | None
    unit: str
    value: float
    bound: str

    @property
    def met(self) -> bool | None:
        """Whether the value keeps the bound; None without one."""
        if not self.bound:
            return None
        sign, limit = self.bound.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)

    def cells(self) -> list[str]:
        """As the table shows it."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        peer = "" if self.peer is None else number(self.peer)
        return [self.goal, self.what, number(self.ours), peer, self.unit, number(self.value), self.bound, verdict]


def faster(goal: str, what: str, ours: float, peer: float, unit: str, bound: str = "") -> Row:
    """A row about how many times less time, or more work in a time, is ours: its value is above 1 where we win."""
    ratio = ours / peer if unit.endswith("/s") else peer / ours
    return Row(goal, what, ours, peer, unit, ratio, bound)


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.4f}"


def table(rows: list[Row]) -> str:
    """Columns that line up."""
    cells = [["goal", "what", "ours", "peer", "unit", "value", "bound", ""], *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def take_turns(contenders: dict[str, Callable[[], float | None]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each contender, after a round to warm up.

    Args:
        contenders: name -> what to time; one that measures itself returns its own seconds.
        repeats: rounds; each begins with another contender, so that none always follows the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(-1, repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.process_time()
            own = contenders[name]()
            if turn >= 0:
                seconds[name].append(time.process_time() - started if own is None else own)
    return {name: statistics.median(values) for name, values in seconds.items()}


# --- start-up: every figure is a process of its own


def program(*words: str, folder: str | None = None, fails: bool = False) -> Callable[[], float]:
    """A contender that is a Python process: the processor seconds that it and its children took."""

    def run() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *words], cwd=folder or ROOT, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if (done.returncode != 0) != fails:
            raise RuntimeError(f"python {' '.join(words)} gave {done.returncode}\n{done.stderr[-2000:]}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return run


def wall(run: Callable[[], object], repeats: int) -> float:
    """Median seconds by the clock."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def goal_10(repeats: int) -> Iterator[Row]:
    """What needs no torch answers at once. The peer is what a template for Lightning and Hydra imports before it can answer."""
    ours = {
        "dlzoo --help": program("-m", "dlzoo", "--help"),
        "dlzoo list models": program("-m", "dlzoo", "list", "models"),
        "train.py --cfg job": program("train.py", "--cfg", "job"),
        "train.py seed=abc (an error)": program("train.py", "seed=abc", fails=True),
        "train.py modell=resnet20 (an error)": program("train.py", "modell=resnet20", fails=True),
    }
    peers = {
        "import hydra": program("-c", "import hydra"),
        "import lightning, hydra, torchvision": program("-c", "import lightning, hydra, torchvision"),
    }
    seconds = take_turns(ours | peers, repeats)
    slow = seconds["import lightning, hydra, torchvision"]
    for name in ours:
        yield Row("G10", name, seconds[name], slow, SECONDS, seconds[name], "<= 0.35")
        if name.endswith("(an error)"):
            yield Row("G10", f"{name}, by the clock", elapsed := wall(ours[name], repeats), None, "s", elapsed, "<= 0.5")
    worst = max(seconds[name] for name in ours)
    yield faster("G10", "the slowest of them beside import lightning, hydra, torchvision", worst, slow, SECONDS, ">= 20")
    yield Row("G10", "import hydra alone, for comparison", seconds["import hydra"], None, SECONDS, seconds["import hydra"], "")


FIRST_STEP = """
import os, runpy, sys
from lightning.pytorch.core.module import LightningModule
def step(self, epoch, batch_idx, optimizer, closure=None, old=LightningModule.optimizer_step):
    old(self, epoch, batch_idx, optimizer, closure)
    sys.stdout.flush()
    os._exit(0)
LightningModule.optimizer_step = step
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
runpy.run_path(sys.argv[0], run_name="__main__")
raise SystemExit("no step was made")
"""

# The same first step from stock parts: a network, a data set in memory, a logger, checkpoints, a bar, a composed config.
STOCK_CONFIG = "{seed: 0, lr: 0.1, batch_size: 64, max_epochs: 1, limit_train_batches: 2, hydra: {run: {dir: .}}}"
STOCK_SCRIPT = """
import hydra
import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models.resnet import BasicBlock, ResNet


class Task(L.LightningModule):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.net = ResNet(BasicBlock, [3, 3, 3, 1], num_classes=10)
        self.net.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.cfg.lr, momentum=0.9)


@hydra.main(config_path=".", config_name="stock", version_base=None)
def main(cfg):
    L.seed_everything(cfg.seed)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    loader = DataLoader(TensorDataset(images, torch.tensor(digits.target)), cfg.batch_size, shuffle=True)
    short = dict(max_epochs=cfg.max_epochs, limit_train_batches=cfg.limit_train_batches)
    trainer = L.Trainer(**short, accelerator="cpu", logger=CSVLogger("."), callbacks=[ModelCheckpoint()])
    trainer.fit(Task(cfg), loader)


main()
"""


def goal_11(repeats: int) -> Iterator[Row]:
    """Processor time until the first step of a training is made."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "first_step.py").write_text(FIRST_STEP)
        (place / "stock.py").write_text(STOCK_SCRIPT)
        (place / "stock.yaml").write_text(STOCK_CONFIG)
        first = str(place / "first_step.py")
        seconds = take_turns(
            {
                "ours": program(first, str(ROOT / "train.py"), "debug=smoke", "trainer=cpu", folder=folder),
                "stock": program(first, str(place / "stock.py"), folder=folder),
                "imports": program("-c", "import lightning, hydra"),
            },
            repeats,
        )
    yield faster("G11", "first training step, beside a script of stock Lightning and Hydra", *_pair(seconds), SECONDS, ">= 1")
    added = seconds["ours"] - seconds["imports"]
    yield Row("G11", "of it more than import lightning, hydra", added, seconds["stock"] - seconds["imports"], SECONDS, added, "<= 0.5")


def goal_12(repeats: int) -> Iterator[Row]:
    """The package itself is light."""
    light = "import sys, dlzoo; sys.exit('torch' in sys.modules)"
    seconds = take_turns({"ours": program("-c", light), "stock": program("-c", "import torch")}, repeats)
    yield Row("G12", "import dlzoo, beside import torch", seconds["ours"], seconds["stock"], SECONDS, seconds["ours"], "<= 0.2")


def _pair(seconds: dict[str, float]) -> tuple[float, float]:
    return seconds["ours"], seconds["stock"]


def main() -> int:
    import bench_data
    import bench_training

    goals: dict[str, Callable[..., Iterator[Row]]] = {
        "G4": bench_training.goal_4,
        "G5": bench_training.goal_5,
        "G8": bench_training.goal_8,
        "G9": bench_data.goal_9,
        "G10": goal_10,
        "G11": goal_11,
        "G12": goal_12,
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
    sys.path.insert(0, str(ROOT))
    sys.modules["bench"] = sys.modules["__main__"]  # what the other two files import is this module, not a second one
    sys.exit(main())
