"""A training step of ResNet-20: G5 and G8 of bench.py. Torch and Lightning are imported when they are first needed."""

import contextlib
import io
import itertools
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bench_timing import SECONDS, Row, faster, take_turns

LR, MOMENTUM = 0.1, 0.9


def goal_5(repeats: int) -> Iterator[Row]:
    """ResNet-20 on CIFAR-10, bf16 and channels-last: the whole stack beside a raw loop, step by step in turn."""
    import torch

    torch.set_num_threads(1)
    pairs = []
    for _ in range(repeats):
        with silence(), tempfile.TemporaryDirectory() as folder:
            pairs.append(_side_by_side(folder))
    pairs.sort(key=lambda pair: pair[1] / pair[0])
    ours, raw = pairs[len(pairs) // 2]
    yield faster("G5", "a training step of ResNet-20, batch 128, bf16; beside a raw loop", ours, raw, SECONDS, ">= 0.99")


def engine(repeats: int) -> Iterator[Row]:
    """The same stack, with all that watches and saves a run, beside Lightning with everything off."""
    import torch

    torch.set_num_threads(1)
    pairs = []
    for _ in range(repeats):
        with silence(), tempfile.TemporaryDirectory() as folder, _lightning_step() as plain:
            pairs.append(_side_by_side(folder, other=plain, steps=30))
    pairs.sort(key=lambda pair: pair[1] / pair[0])
    ours, bare = pairs[len(pairs) // 2]
    what = "more a step of ResNet-20, batch 128, bf16, than bare Lightning, as a share of it"
    yield Row("engine", what, ours, bare, SECONDS, ours / bare - 1, "<= 0.03")


def goal_8(repeats: int, compiled: bool = False) -> Iterator[Row]:
    """A step of ResNet-20 as cpu_fast makes it, beside the same network as torch has it by default."""
    import torch

    torch.set_num_threads(1)
    contenders = {"stock": resnet_step("fp32"), "ours": resnet_step("bf16")}
    if compiled:
        contenders["compiled"] = resnet_step("bf16", compiled=True)
    seconds = take_turns(contenders, 3 * repeats)
    what = "a training step of ResNet-20, batch 128, bf16 and channels-last; beside a plain one in fp32"
    yield faster("G8", what, *_two(seconds, "ours"), ">= 2.5")
    if compiled:
        yield faster("G8", "the same compiled", *_two(seconds, "compiled"), ">= 3.0")


def _two(seconds: dict[str, float], name: str) -> tuple[float, float, str]:
    return seconds[name], seconds["stock"], SECONDS


def stack(folder: str, *overrides: str) -> tuple[Any, Any, Any]:
    """Task, data and trainer as `python train.py` makes them, for a run in an empty folder."""
    from omegaconf import OmegaConf

    import dlzoo
    from dlzoo import run

    os.makedirs(f"{folder}/checkpoints")
    config = OmegaConf.to_container(dlzoo.compose(f"run_dir={folder}", *overrides), resolve=True)
    return run.build(config)


def time_pictures(trainer: Any) -> list[float]:
    """Has the run report note how long each of its drawings took."""
    report = next(callback for callback in trainer.callbacks if type(callback).__name__ == "RunReport")
    drawn: list[float] = []
    inside = False

    def timed(draw: Callable[..., None]) -> Callable[..., None]:
        def run(*words: Any) -> None:
            nonlocal inside
            if inside:  # one of them calls another
                return draw(*words)
            started, inside = time.process_time(), True
            draw(*words)
            inside = False
            drawn.append(time.process_time() - started)

        return run

    for name in ("_draw", "_draw_curves", "_draw_first"):
        setattr(report, name, timed(getattr(report, name)))
    return drawn


def optimizer(net: Any, steps: int, fused: bool) -> tuple[Any, Any]:
    """The same descent for all, and its schedule."""
    import torch

    from dlzoo.optim.schedules import one_cycle

    sgd = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, fused=fused)
    return sgd, one_cycle(sgd, steps)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Bars are drawn as on a terminal, but nobody sees them; advice is kept back."""
    before = os.environ.get("FORCE_COLOR")
    os.environ["FORCE_COLOR"] = "1"  # has rich take the silence for a terminal
    import lightning  # noqa: F401, which sets the level of its loggers when it is imported

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    os.environ.pop("FORCE_COLOR")
    if before is not None:
        os.environ["FORCE_COLOR"] = before


def _side_by_side(folder: str, other: Callable[[], None] | None = None, steps: int = 20) -> tuple[float, float]:
    """Processor seconds a step of the whole stack and of another, or a raw loop, which takes one before each of its batches."""
    limits = ("trainer.max_epochs=1", f"trainer.limit_train_batches={steps + 2}", "trainer.limit_val_batches=0")
    task, data, trainer = stack(folder, "experiment=cifar10_resnet", "trainer=cpu_fast", *limits)
    drawn, raw_step = time_pictures(trainer), other or _raw_step(_cifar(channels_last=True), "bf16", fused=True)
    ours: list[float] = []
    raw: list[float] = []

    class InTurn:
        """Our batches, with a raw step before each."""

        def __init__(self, batches: Any) -> None:
            self.batches, self.sampler = batches, batches.sampler

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self) -> Iterator[Any]:
            batches, pictures = iter(self.batches), 0
            while True:
                started = time.process_time()
                raw_step()
                between = time.process_time()
                raw.append(between - started)
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch
                ours.append(time.process_time() - between - sum(drawn[pictures:]))
                pictures = len(drawn)

    train = data.train_dataloader
    data.train_dataloader = lambda: InTurn(train())
    trainer.fit(task, datamodule=data)
    kept = slice(2, steps)  # the first steps warm up, and Lightning looks a batch ahead
    return sum(ours[kept]) / len(ours[kept]), sum(raw[kept]) / len(raw[kept])


@contextlib.contextmanager
def _lightning_step() -> Iterator[Callable[[], None]]:
    """One step of bare Lightning at each call: it runs in a thread, whose batches wait for the call."""
    import lightning as L
    import torch
    import torch.nn.functional as F

    import dlzoo

    go, done, over = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    batches = _cifar(channels_last=True)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = dlzoo.create_model("resnet20").to(memory_format=torch.channels_last)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self.net(batch[0]).float(), batch[1])

        def configure_optimizers(self) -> dict[str, Any]:
            sgd, schedule = optimizer(self, 10_000, fused=True)
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class WhenCalled:
        def __len__(self) -> int:
            return 10_000

        def __iter__(self) -> Iterator[Any]:
            while True:
                for batch in batches:
                    done.release()
                    go.acquire()
                    if over.is_set():
                        return
                    yield batch

    silent = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", precision="bf16-mixed", max_epochs=1, **silent)
    thread = threading.Thread(target=trainer.fit, args=(Module(), WhenCalled()), daemon=True)
    thread.start()
    done.acquire()

    def step() -> None:
        go.release()
        done.acquire()

    yield step
    over.set()
    go.release()
    thread.join(60)


def resnet_step(precision: str, compiled: bool = False) -> Callable[[], None]:
    """A training step of ResNet-20 at batch 128: "bf16" as trainer=cpu_fast makes it, "fp32" as torch does by default."""
    return _raw_step(_cifar(channels_last=precision == "bf16"), precision, fused=precision == "bf16", compiled=compiled)


def _raw_step(batches: Any, precision: str, fused: bool, compiled: bool = False) -> Callable[[], None]:
    import torch
    import torch.nn.functional as F

    import dlzoo

    fast = precision == "bf16"
    net = dlzoo.create_model("resnet20") if fast else _plain_resnet20()
    if fast:
        net.to(memory_format=torch.channels_last)
    if compiled:
        net.compile()
    sgd, schedule = optimizer(net, 10_000, fused)

    def forever() -> Iterator[Any]:
        while True:
            yield from batches

    given = forever()

    def step() -> None:
        x, y = next(given)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = F.cross_entropy(net(x).float(), y)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        schedule.step()

    return step


def _cifar(channels_last: bool) -> Any:
    from dlzoo.datamodules.cifar import Cifar10

    return Cifar10(os.environ.get("DLZOO_DATA", "data"), channels_last=channels_last).train_dataloader()


def _plain_resnet20() -> Any:
    """The network of He et al. 2015, section 4.2, as it is usually written, without our care for memory order."""
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, width: int) -> None:
            super().__init__()
            self.grow = width - before
            self.conv1 = nn.Conv2d(before, width, 3, 2 if self.grow else 1, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)

        def forward(self, x: Any) -> Any:
            y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
            if self.grow:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grow // 2, self.grow // 2))
            return F.relu(x + y)

    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(before, width) for before, width in itertools.pairwise(widths)]
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
