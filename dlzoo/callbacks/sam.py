"""Sharpness-aware minimisation, over any optimizer."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from dlzoo.errors import ConfigError, NumericalError
from dlzoo.optim.sam import ascend, gradient_norm


@dataclass
class Microbatch:
    """A batch as the training step saw it, with the random numbers that it began with."""

    batch: Any
    index: int
    random: tuple[Tensor, Tensor | None]


class SAM(L.Callback):
    """Steps with the gradient at the worst point nearby: goes uphill by rho, takes the gradient there, and comes back.

    When the optimizer is about to step, its gradient is that of the whole batch: added up over the accumulated batches,
    averaged over the processes, unscaled. The batches of the step are then computed once more at the weights w + e. Dropout and
    mixing draw the same numbers as before; the running statistics of norms are those of the first pass; clipping, the scaler's
    look at the gradient and the optimizer follow as always. A training step must keep no count of its calls.

    Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412, equations 2 and 3.

    Args:
        rho: radius of the neighbourhood.

    Raises:
        ValueError: rho is not above 0.
    """

    def __init__(self, rho: float = 0.05) -> None:
        if rho <= 0:
            raise ValueError(f"rho must be above 0, got {rho}")
        self.rho = rho
        self._window: list[Microbatch] = []

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise ConfigError(
                "SAM needs all gradients of a parameter on each device, and this strategy shards them",
                where=f"callbacks.sam, trainer.strategy={type(trainer.strategy).__name__}",
                fix="trainer=ddp, or leave callbacks=sam out",
            )
        if not task.automatic_optimization:
            raise ConfigError(
                "SAM works with tasks that leave the step to Lightning", where=f"callbacks.sam, {type(task).__name__}"
            )

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._window.clear()

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._window.clear()
        self._window.append(Microbatch(batch, batch_idx, _random_state(trainer.strategy.root_device)))

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: Optimizer) -> None:
        window, self._window = self._window, []
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = gradient_norm(parameters)
        if not 0 < norm < float("inf"):  # nothing to follow; a gradient that overflowed is the scaler's to skip
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        unscaled = scaler is not None and scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.UNSCALED
        kept = [parameter.detach().clone() for parameter in parameters]
        try:
            with torch.no_grad():
                ascend(parameters, self.rho / norm)
            for parameter in parameters:
                parameter.grad = None
            _replay(trainer, task, window, scaler)
        finally:  # a stop in between must not leave the weights uphill
            with torch.no_grad():
                torch._foreach_copy_(parameters, kept)
        if unscaled:  # Lightning did so with the first gradient: the second one's overflow is what counts
            scaler._per_optimizer_states[id(optimizer)]["stage"] = OptState.READY
            scaler.unscale_(optimizer)
        if scaler is None and not gradient_norm(parameters) < float("inf"):
            raise NumericalError(
                "the gradient at SAM's neighbouring weights is not finite",
                where=f"step {trainer.global_step}, epoch {trainer.current_epoch}, rho {self.rho}",
                safe="the weights were not changed by it; the checkpoints written before it",
                fix="a smaller callbacks.sam.rho, or a smaller optimizer.lr",
            )


def _replay(trainer: L.Trainer, task: L.LightningModule, window: list[Microbatch], scaler: Any) -> None:
    """The gradient of a step's batches at the weights as they are now; nothing else is different afterwards."""
    strategy, loop = trainer.strategy, trainer.fit_loop.epoch_loop
    device = strategy.root_device
    buffers = [(buffer, buffer.clone()) for buffer in task.buffers()]
    random = _random_state(device)
    try:
        with torch.enable_grad(), _silent(task):
            for number, micro in enumerate(window, 1):
                # as in the first pass, the processes exchange the gradient of the last batch alone, with all before it
                alone = number < len(window) and hasattr(strategy, "block_backward_sync")
                with strategy.block_backward_sync() if alone else contextlib.nullcontext():
                    _restore_random_state(micro.random, device)
                    arguments = loop._build_kwargs(OrderedDict(), micro.batch, micro.index)
                    output = strategy.training_step(*arguments.values())
                    loss = (output if isinstance(output, Tensor) else output["loss"]) / trainer.accumulate_grad_batches
                    strategy.pre_backward(loss)
                    task.backward(loss if scaler is None else scaler.scale(loss))
                    strategy.post_backward(loss)
    finally:
        _restore_random_state(random, device)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextlib.contextmanager
def _silent(task: L.LightningModule) -> Iterator[None]:
    """The second pass logs nothing: its losses are those of other weights."""
    task.log = task.log_dict = lambda *_, **__: None
    try:
        yield
    finally:
        del task.log, task.log_dict


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    own = getattr(torch, device.type).get_rng_state() if device.type == "mps" else None
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else own


def _restore_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state[1])
