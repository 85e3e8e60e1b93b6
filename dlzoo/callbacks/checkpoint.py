"""Checkpoints from which a run goes on exactly: when they are saved, which are kept, and stopping between two steps.

Kept are the newest two (`last.ckpt`, `previous.ckpt`), the best in validation (`best.ckpt`) and, if wanted, each k-th epoch's.
Each is written under a temporary name, flushed to the disk and renamed; one that can not be written costs nothing but itself.
"""

import logging
import math
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from dlzoo import checkpoints, signals
from dlzoo.callbacks import position
from dlzoo.callbacks.loggers import CSVLogger
from dlzoo.callbacks.randomness import random_state, restore_random_state
from dlzoo.errors import StorageError
from dlzoo.signals import Stopped

log = logging.getLogger("dlzoo")


class Checkpoints(Checkpoint):
    """Saves what is needed to go on, between two optimizer steps, and stops there when a signal asks for it.

    Args:
        dirpath: the folder of the checkpoints.
        monitor: the metric that decides which is the best; None keeps none but the newest.
        mode: whether a small or a large value is good.
        every_seconds: time between two saves; the last one of the training is saved in any case.
        every_n_steps: optimizer steps between two saves, besides.
        keep_every_n_epochs: epochs whose checkpoints are kept for good.
        tries: saves that may fail one after the other before the run gives up.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        every_seconds: float = 60.0,
        every_n_steps: int | None = None,
        keep_every_n_epochs: int | None = None,
        tries: int = 3,
    ) -> None:
        self.folder, self.monitor, self.mode = Path(dirpath), monitor, mode
        self.every_seconds, self.every_n_steps, self.keep_every_n_epochs = every_seconds, every_n_steps, keep_every_n_epochs
        self.tries = tries
        self.best: float | None = None
        self.metrics: dict[str, float] = {}  # of the newest validation: a resumed run may end without one of its own
        self._at: position.Position | None = None  # where the run stands while a checkpoint is being saved
        self._counted = False
        self._failed = 0
        self._improved = False
        self._saved_step = -1
        self._next = math.inf
        self._found: dict[str, Any] = {}  # of the checkpoint that the run goes on from
        self._rates: list[list[float]] = []
        self._random: dict[str, Any] | None = None

    @property
    def best_model_path(self) -> str:
        """The best checkpoint, for Lightning and the test; "" where there is none."""
        path = self.folder / checkpoints.BEST
        return str(path) if self.best is not None and path.exists() else ""

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "metrics": self.metrics, "position": self._at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.metrics = state["best"], dict(state["metrics"])
        self._found["position"] = state["position"]

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        # Lightning's handler talks to the other ranks from inside a signal; ours only takes a note
        trainer._signal_connector.register_signal_handlers = lambda: None
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        trainer.strategy.checkpoint_io = WholeFileIO()
        if trainer.is_global_zero:
            checkpoints.sweep(self.folder)
            _require_space(trainer, task, self.folder)

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        # what the config says, before a checkpoint is put over it
        self._rates = [[group.get("initial_lr", group["lr"]) for group in opt.param_groups] for opt in trainer.optimizers]

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._at is None:  # somebody else's save
            return
        position.write(trainer, checkpoint["loops"]["fit_loop"], self._at, self._counted)
        state = self._random if self._at == "validation" and self._random else random_state()
        checkpoint["random"] = _of_all_ranks(state)

    def on_load_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":  # the test of the best weights: the rows that came after them stay
            return
        self._found["random"] = checkpoint.get("random")
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and trainer.is_global_zero:
                logger.go_on(checkpoint["global_step"])

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._next = time.monotonic() + self.every_seconds
        signals.install()
        signals.deferred(True)
        if trainer.global_rank:  # all ranks were seeded alike, and each should draw masks of its own
            own = (torch.initial_seed() + 1_000_003 * trainer.global_rank) % 2**32
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(own)
        if self._found:
            self._take_up(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop._should_accumulate():
            return  # half a step: its gradients are in no checkpoint
        stop, due = self._asked(trainer)
        if not (stop or due):
            return
        self._at, self._counted = position.place(trainer, validated=False), False
        if self._at == "epoch":  # the hooks that end it come at once
            self._at = None
        elif stop:
            raise Stopped(stop)
        elif self._at == "batch":  # with a validation ahead it is saved after that
            self._save(trainer, checkpoints.LAST)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._random = random_state()
        self._at, self._counted = "validation", False

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and (stop := self._signal(trainer)):
            raise Stopped(stop)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._at = self._random = None
        if trainer.sanity_checking:
            return
        self.metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        value = self.metrics.get(self.monitor or "")
        if value is not None and (self.best is None or (value < self.best if self.mode == "min" else value > self.best)):
            self.best, self._improved = value, True
        if position.place(trainer, validated=True) == "batch":  # in the middle of an epoch: nothing else follows it
            self._at, self._counted = "batch", False
            self._save_validated(trainer, due=self._asked(trainer)[1])

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        whole = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        self._at, self._counted = "epoch" if whole else "batch", True
        stop, due = self._asked(trainer)
        every = self.keep_every_n_epochs
        keeps = bool(every and whole and (trainer.current_epoch + 1) % every == 0)
        ends = bool(stop) or _ends(trainer)
        self._save_validated(trainer, due=due or keeps or ends)
        if keeps and trainer.is_global_zero and not self._failed:
            checkpoints.keep(self.folder / checkpoints.LAST, f"epoch_{trainer.current_epoch + 1:04d}.ckpt")
        if ends and self._failed:
            raise StorageError(
                "the last checkpoint of the training could not be written",
                where=str(self.folder),
                safe="the checkpoints that were there before",
                fix="free some space, then resume the run",
            )
        self._at = None
        if stop and not _ends(trainer):
            raise Stopped(stop)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._at = None
        signals.deferred(False)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        """The place where a stop is saved: by now the callbacks before this one have put the trained weights back."""
        if isinstance(exception, Stopped) and self._at is not None:
            self._save(trainer, checkpoints.LAST)

    # --- going on

    def _take_up(self, trainer: L.Trainer) -> None:
        found, self._found = self._found, {}
        if found.get("position"):
            position.read(trainer, found["position"])
        for optimizer, rates, schedule in zip(trainer.optimizers, self._rates, trainer.lr_scheduler_configs, strict=False):
            _set_rates(optimizer, rates, schedule.scheduler)
        states = found.get("random") or []
        if len(states) == trainer.world_size:
            restore_random_state(states[trainer.global_rank])

    # --- saving

    def _asked(self, trainer: L.Trainer) -> tuple[int, bool]:
        """The signal that asks to stop, and whether it is time for a save; the same on every rank."""
        step = trainer.global_step
        due = bool(self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step)
        late = time.monotonic() >= self._next
        if trainer.world_size == 1:
            return signals.requested(), due or late
        flags = torch.tensor([signals.requested(), int(late)], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        stop, late = flags.tolist()
        return stop, due or bool(late)

    def _signal(self, trainer: L.Trainer) -> int:
        return self._asked(trainer)[0] if trainer.world_size > 1 else signals.requested()

    def _save_validated(self, trainer: L.Trainer, due: bool) -> None:
        improved, self._improved = self._improved, False
        if due or improved:
            self._save(trainer, checkpoints.LAST if due else checkpoints.BEST)
        if due and improved and not self._failed and trainer.is_global_zero:
            checkpoints.keep(self.folder / checkpoints.LAST, checkpoints.BEST)
        self._at = None

    def _save(self, trainer: L.Trainer, name: str) -> None:
        """Writes one checkpoint; a disk that refuses it is told of, and after a few times in a row stops the run."""
        for logger in trainer.loggers:
            logger.save()  # the rows up to here: a run that goes on keeps them
        temporary = self.folder / f"{checkpoints.TEMPORARY}{name}"
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
            error = getattr(trainer.strategy.checkpoint_io, "error", None)
            if trainer.is_global_zero and error is None:
                checkpoints.publish(temporary, self.folder / name)
        except OSError as caught:
            error = caught
        failed = bool(trainer.strategy.broadcast(error is not None)) if trainer.world_size > 1 else error is not None
        trainer.strategy.barrier("checkpoint")
        self._next = time.monotonic() + self.every_seconds
        if name == checkpoints.LAST:
            self._saved_step = -1 if failed else trainer.global_step
        self._failed = self._failed + 1 if failed else 0
        if not failed:
            return
        if self._failed < self.tries:
            log.warning("%s could not be written (%s); the one before it is untouched, and training goes on", name, error)
            return
        raise StorageError(
            f"{name} could not be written {self._failed} times in a row: {getattr(error, 'strerror', None) or error}",
            where=str(self.folder),
            safe="the checkpoints that were there before",
            fix="free some space, then resume the run",
        )


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint down to the disk; what went wrong is kept in `error`, so that all ranks can hear of it together."""

    error: OSError | None = None

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: Any, storage_options: Any = None) -> None:
        self.error = None
        try:
            checkpoints.write(checkpoint, Path(path))
        except OSError as error:
            self.error = error


def _ends(trainer: L.Trainer) -> bool:
    """Whether the training is over when this epoch's hooks are: what Lightning asks next, without its side effects."""
    loop, limits = trainer.fit_loop, (trainer.max_epochs, trainer.max_steps)
    epochs = loop.epoch_progress.current.processed
    over = limits[0] is not None and limits[0] != -1 and epochs >= limits[0]
    over = over or (limits[1] != -1 and trainer.global_step >= limits[1])
    return bool(over or (trainer.should_stop and loop._can_stop_early))


def _set_rates(optimizer: Any, rates: list[float], schedule: Any) -> None:
    """The config's rate, where it is another than the checkpoint's: the schedule keeps its place, the scale is new."""
    for index, (group, rate) in enumerate(zip(optimizer.param_groups, rates, strict=True)):
        before = group.get("initial_lr", rate)
        if rate != before:
            log.info("the rate of the config, %g, takes the place of the checkpoint's, %g", rate, before)
            schedule.base_lrs[index] = group["initial_lr"] = rate
            group["lr"] *= rate / before


def _of_all_ranks(state: dict[str, Any]) -> list[dict[str, Any]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def _require_space(trainer: L.Trainer, task: L.LightningModule, folder: Path) -> None:
    """Room for three checkpoints, found missing before the first epoch and not after the tenth."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in task.state_dict().values())
    need = 3 * 3 * size  # weights and at most two moments of the optimizer
    free = shutil.disk_usage(folder).free
    if free < need:
        raise StorageError(
            f"three checkpoints of about {3 * size / 1e6:,.0f} MB do not fit: {free / 1e6:,.0f} MB are free",
            where=str(folder),
            fix="free some space, or run_dir=PATH on another disk",
        )
