"""How soon dlzoo answers: G10, G11 and G12 of bench.py. Every figure is a process of its own."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_timing import SECONDS, Row, faster, take_turns

ROOT = Path(__file__).resolve().parent.parent


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
    yield Row(
        "G11", "of it more than import lightning, hydra", added, seconds["stock"] - seconds["imports"], SECONDS, added, "<= 0.5"
    )


def goal_12(repeats: int) -> Iterator[Row]:
    """The package itself is light."""
    light = "import sys, dlzoo; sys.exit('torch' in sys.modules)"
    seconds = take_turns({"ours": program("-c", light), "stock": program("-c", "import torch")}, repeats)
    yield Row("G12", "import dlzoo, beside import torch", seconds["ours"], seconds["stock"], SECONDS, seconds["ours"], "<= 0.2")


def _pair(seconds: dict[str, float]) -> tuple[float, float]:
    return seconds["ours"], seconds["stock"]
