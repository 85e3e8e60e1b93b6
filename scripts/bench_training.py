"""The speed of training: G4, G5 and G8 of bench.py. Torch and Lightning are imported when a goal first needs them."""

import contextlib
import importlib.util
import io
import itertools
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bench_timing import SECONDS, Row, faster, take_turns

EPOCHS = 26  # of 19 batches of 64 digits: 494 steps
LR, MOMENTUM = 0.1, 0.9


def goal_4(repeats: int) -> Iterator[Row]:
    """A network so small that only the framework takes time: 64-128-10 on the 8x8 digits, batches of 64."""
    import torch

    torch.set_num_threads(1)
    contenders = {"ours": _ours, "bare": _bare, "stock": _stock, "loop": _loop, "whole": _whole_loop}
    if importlib.util.find_spec("accelerate") and importlib.util.find_spec("transformers"):
        contenders["trainer"] = _transformers
    else:
        print("G4: transformers' Trainer is left out: accelerate or transformers is not installed")
    with _silence():
        seconds = take_turns(contenders, repeats)
        drawing = sorted(_drawing() for _ in range(3))[1]
    steps = EPOCHS * len(_digits().train_dataloader())
    rate = {name: steps / value for name, value in seconds.items()}
    yield faster(
        "G4", "MLP on digits: bar, log, checkpoints; beside Lightning's own", rate["ours"], rate["stock"], "steps/s", ">= 2.5"
    )
    if "trainer" in rate:
        yield faster("G4", "the same beside transformers' Trainer", rate["ours"], rate["trainer"], "steps/s", ">= 2.5")
    over = 1e3 * (seconds["ours"] - seconds["bare"]) / steps
    milliseconds = {name: 1e3 * value / steps for name, value in seconds.items()}
    yield Row(
        "G4",
        "more than bare Lightning on the same batches",
        milliseconds["ours"],
        milliseconds["bare"],
        "ms a step",
        over,
        "<= 0.1",
    )
    yield faster("G4", "beside a raw loop with a DataLoader", rate["ours"], rate["loop"], "steps/s")
    yield faster("G4", "beside a raw loop over whole-tensor batches", rate["ours"], rate["whole"], "steps/s")
    yield Row("G4", "a validation's pictures, which are not in the above", drawing, None, SECONDS, drawing, "")


def goal_5(repeats: int) -> Iterator[Row]:
    """ResNet-20 on CIFAR-10, bf16 and channels-last: the whole stack beside a raw loop, step by step in turn."""
    import torch

    torch.set_num_threads(1)
    with _silence():
        pairs = sorted((_side_by_side() for _ in range(repeats)), key=lambda pair: pair[1] / pair[0])
    ours, raw = pairs[len(pairs) // 2]
    yield faster("G5", "a training step of ResNet-20, batch 128, bf16; beside a raw loop", ours, raw, SECONDS, ">= 0.99")


def goal_8(repeats: int, compiled: bool = False) -> Iterator[Row]:
    """A step of ResNet-20 as cpu_fast makes it, beside the same network as torch has it by default."""
    import torch

    torch.set_num_threads(1)
    contenders = {"stock": resnet_step("fp32"), "ours": resnet_step("bf16")}
    if compiled:
        contenders["compiled"] = resnet_step("bf16", compiled=True)
    seconds = take_turns(contenders, 3 * repeats)
    plain = "beside a plain one in fp32 as torch has it by default"
    yield faster(
        "G8", f"a training step of ResNet-20, batch 128, bf16 and channels-last; {plain}", *_two(seconds, "ours"), ">= 2.5"
    )
    if compiled:
        yield faster("G8", "the same compiled", *_two(seconds, "compiled"), ">= 3.0")


def _two(seconds: dict[str, float], name: str) -> tuple[float, float, str]:
    return seconds[name], seconds["stock"], SECONDS


# --- G4: the same training by six hands. All have a rate that changes every step, and all but `bare` and `whole` write a checkpoint
# every epoch. Validation is left out: what a run draws then would be all that is measured.


def _ours() -> float:
    """`python train.py` with this network: run report, screen, metrics.csv, checkpoints."""
    task, data, trainer = _stack("limit_val_batches=0")
    drawn = _time_pictures(trainer)
    return _fit_seconds(trainer, task, data) - sum(drawn)


def _bare() -> float:
    """Lightning with everything off, on dlzoo's batches."""
    import lightning as L

    trainer = L.Trainer(**_short(), logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return _fit_seconds(trainer, _module(log=False, fused=True), _digits())


def _stock() -> float:
    """Lightning as its manual has it: a DataLoader, its bar, its CSV logger, its checkpoints, self.log in every step."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(**_short(), log_every_n_steps=10, logger=CSVLogger(folder), callbacks=[ModelCheckpoint()])
        return _fit_seconds(trainer, _module(log=True, fused=False), _loader())


def _loop() -> float:
    """A loop over a DataLoader, with a checkpoint each epoch."""
    return _train_by_hand(_loader(), fused=False, checkpoints=True)


def _whole_loop() -> float:
    """A loop over dlzoo's batches, and nothing else."""
    return _train_by_hand(_digits().train_dataloader(), fused=True, checkpoints=False)


def _transformers() -> float:
    """transformers' Trainer, with its log and its checkpoints."""
    import torch.nn.functional as F
    from torch import nn
    from transformers import Trainer, TrainingArguments

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _mlp()

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    dataset = [{"x": x, "labels": y} for x, y in _loader().dataset]
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"num_train_epochs": EPOCHS, "save_strategy": "epoch", "save_total_limit": 1, "report_to": []}
        options |= {"per_device_train_batch_size": 64, "dataloader_drop_last": True, "logging_steps": 10, "learning_rate": LR}
        options |= {"optim": "sgd", "optim_args": f"momentum={MOMENTUM}", "use_cpu": True}
        trainer = Trainer(Classifier(), TrainingArguments(folder, **options), train_dataset=dataset)
        started = time.process_time()
        trainer.train()
        return time.process_time() - started


def _train_by_hand(batches: Any, fused: bool, checkpoints: bool) -> float:
    import torch
    import torch.nn.functional as F

    net = _mlp()
    optimizer, schedule = _optimizer(net, EPOCHS * len(batches), fused)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(EPOCHS):
            for x, y in batches:
                loss = F.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if checkpoints:
                torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, f"{folder}/last.ckpt")
    return time.process_time() - started


def _stack(*overrides: str, network: bool = True) -> tuple[Any, Any, Any]:
    """Task, data and trainer as `python train.py` makes them; with the small network in place of ResNet-20."""
    import dlzoo
    from dlzoo import run

    folder = tempfile.mkdtemp(prefix="dlzoo-bench-")
    words = ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", "data.crop_padding=0", f"run_dir={folder}", *overrides]
    config = dlzoo.compose(*[f"trainer.{word}" if word.startswith("limit_") else word for word in words])
    os.makedirs(f"{folder}/checkpoints")
    task, data, trainer = run.build(dict(_plain(config)))
    if network:
        task.net = _mlp()
    return task, data, trainer


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)


def _fit_seconds(trainer: Any, task: Any, data: Any) -> float:
    """Processor seconds of the training loop; what Lightning does once before and after it is left out."""
    loop, seconds = trainer.fit_loop.run, []

    def timed() -> None:
        started = time.process_time()
        loop()
        seconds.append(time.process_time() - started)

    trainer.fit_loop.run = timed
    if hasattr(data, "train_dataloader"):
        trainer.fit(task, datamodule=data)
    else:
        trainer.fit(task, data)
    return seconds[0]


def _time_pictures(trainer: Any) -> list[float]:
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

    for name in ("_draw", "_draw_curves", "_draw_samples", "_draw_example"):
        setattr(report, name, timed(getattr(report, name)))
    return drawn


def _drawing() -> float:
    """Processor seconds of the pictures of one validation, the third: the first two also import and warm up."""
    task, data, trainer = _stack("trainer.max_epochs=3")
    drawn = _time_pictures(trainer)
    trainer.fit(task, datamodule=data)
    return drawn[-2]  # the last are the curves at the end of the training


def _mlp() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _optimizer(net: Any, steps: int, fused: bool) -> tuple[Any, Any]:
    import torch

    from dlzoo.optim.schedules import one_cycle

    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, fused=fused)
    return optimizer, one_cycle(optimizer, steps)


def _short() -> dict[str, Any]:
    return {"max_epochs": EPOCHS, "accelerator": "cpu", "enable_model_summary": False, "limit_val_batches": 0}


def _digits() -> Any:
    """dlzoo's digits without crops, which the peers do not make either."""
    from dlzoo.datamodules.digits import Digits

    return Digits(crop_padding=0)


def _loader() -> Any:
    """The same images as floats, in a DataLoader."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = (torch.cat(parts) for parts in zip(*_digits().train_dataloader(), strict=True))
    return DataLoader(TensorDataset(x, y), 64, shuffle=True, drop_last=True)


def _module(log: bool, fused: bool) -> Any:
    import lightning as L
    import torch.nn.functional as F

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = _mlp()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            if log:
                self.log("train/loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer, schedule = _optimizer(self, int(self.trainer.estimated_stepping_batches), fused)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Module()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Bars are drawn as on a terminal, but nobody sees them; advice is kept back."""
    before = os.environ.get("FORCE_COLOR")
    os.environ["FORCE_COLOR"] = "1"  # has rich take the silence for a terminal
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    os.environ.pop("FORCE_COLOR")
    if before is not None:
        os.environ["FORCE_COLOR"] = before


# --- G5 and G8: ResNet-20


def _side_by_side(steps: int = 20) -> tuple[float, float]:
    """Processor seconds a step of the whole stack and of a raw loop; each of its batches waits for a step of the other."""
    import dlzoo

    overrides = ("experiment=cifar10_resnet", "trainer=cpu_fast", "data.crop_padding=4", "limit_val_batches=0")
    task, data, trainer = _stack(*overrides, "trainer.max_epochs=1", f"limit_train_batches={steps + 2}", network=False)
    del dlzoo
    drawn, raw_step = _time_pictures(trainer), _raw_step(_cifar(channels_last=True), "bf16", fused=True)
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
    optimizer, schedule = _optimizer(net, 10_000, fused)

    def forever() -> Iterator[Any]:
        while True:
            yield from batches

    given = forever()

    def step() -> None:
        x, y = next(given)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = F.cross_entropy(net(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
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
