"""What the framework costs: G4 of bench.py, one training by several hands, of a network so small that little else takes time.

Each has a rate that changes every step, and all but `_bare` and `_whole_loop` write a checkpoint each epoch. Validation is left
out: what a run draws then would be most of what is measured. Torch and Lightning are imported when they are first needed.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench_timing import SECONDS, Row, faster, take_turns
from bench_training import LR, MOMENTUM, optimizer, silence, stack, time_pictures

EPOCHS = 26  # of 19 batches of 64 digits: 494 steps
DIGITS = ("trainer=cpu", f"trainer.max_epochs={EPOCHS}", "data.crop_padding=0")  # the peers do not crop
EACH_EPOCH = "callbacks.checkpoint.every_n_steps=19"  # by default dlzoo saves by the clock, and the peers each epoch


def goal_4(repeats: int) -> Iterator[Row]:
    """A network so small that only the framework takes time: 64-128-10 on the 8x8 digits, batches of 64."""
    import torch

    torch.set_num_threads(1)
    contenders: dict[str, Callable[[], float]] = {"ours": _ours, "stock": _stock, "loop": _loop, "whole": _whole_loop}
    contenders["ours, by the clock"] = lambda: _ours(saves=None)
    contenders |= {"bare": _bare, "bare, saving": lambda: _bare(checkpoints=True)}
    if importlib.util.find_spec("accelerate") and importlib.util.find_spec("transformers"):
        contenders["trainer"] = _transformers
    else:
        print("G4: transformers' Trainer is left out: accelerate or transformers is not installed")
    with silence():
        seconds = take_turns(contenders, repeats)
        drawing = sorted(_drawing() for _ in range(3))[1]
    steps = EPOCHS * len(_digits().train_dataloader())
    rate = {name: steps / value for name, value in seconds.items()}
    for peer, what, bound in (
        ("stock", "MLP on digits, with bar, log and checkpoints; beside Lightning with its own", ">= 2.5"),
        ("trainer", "the same beside transformers' Trainer", ">= 2.5"),
        ("loop", "the same beside a raw loop with a DataLoader", ""),
        ("whole", "the same beside a raw loop on the same batches", ""),
    ):
        if peer in rate:
            yield faster("G4", what, rate["ours"], rate[peer], "steps/s", bound)
    what = "the same as dlzoo saves by default: each 60 seconds, where Lightning saves each epoch"
    yield faster("G4", what, rate["ours, by the clock"], rate["stock"], "steps/s", "")
    each = {name: 1e3 * value / steps for name, value in seconds.items()}
    for peer, what, bound in (
        ("bare", "more than bare Lightning on the same batches", "<= 0.1"),
        ("bare, saving", "more than bare Lightning that also writes its checkpoint each 19 steps", ""),
    ):
        yield Row("G4", what, each["ours"], each[peer], "ms a step", each["ours"] - each[peer], bound)
    yield Row("G4", "the pictures of a validation, which are not in the above", drawing, None, SECONDS, drawing, "")


def _ours(saves: str | None = EACH_EPOCH) -> float:
    """`python train.py` with this network: run report, screen, metrics.csv, checkpoints, as often as the peers write theirs."""
    with tempfile.TemporaryDirectory() as folder:
        task, data, trainer = stack(folder, *DIGITS, "trainer.limit_val_batches=0", *([saves] if saves else []))
        task.net = _mlp()
        drawn = time_pictures(trainer)
        return _fit_seconds(trainer, task, data) - sum(drawn)


def _bare(checkpoints: bool = False) -> float:
    """Lightning with everything off, on dlzoo's batches; with a checkpoint each epoch if wanted."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    with tempfile.TemporaryDirectory() as folder:
        callbacks = [ModelCheckpoint(folder)] if checkpoints else []
        silent = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": checkpoints}
        trainer = L.Trainer(**_short(), **silent, callbacks=callbacks)
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
    sgd, schedule = optimizer(net, EPOCHS * len(batches), fused)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(EPOCHS):
            for x, y in batches:
                loss = F.cross_entropy(net(x), y)
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                schedule.step()
            if checkpoints:
                torch.save({"net": net.state_dict(), "optimizer": sgd.state_dict()}, f"{folder}/last.ckpt")
    return time.process_time() - started


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


def _drawing() -> float:
    """Processor seconds of the pictures of one validation, the third: the first two also import and warm up."""
    with tempfile.TemporaryDirectory() as folder:
        task, data, trainer = stack(folder, *DIGITS, "trainer.max_epochs=3")
        task.net = _mlp()
        drawn = time_pictures(trainer)
        trainer.fit(task, datamodule=data)
    return drawn[-2]  # the last are the curves at the end of the training


def _mlp() -> Any:
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


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
            sgd, schedule = optimizer(self, int(self.trainer.estimated_stepping_batches), fused)
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Module()
