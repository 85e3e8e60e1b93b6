"""Stops at a loss that is not finite, before it reaches the weights; or leaves a few such steps out."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from dlzoo.errors import NumericalError

FIX = "a smaller optimizer.lr, trainer.gradient_clip_val=1, trainer.precision=32, or callbacks.finite.on_nonfinite=skip"


class FiniteLoss(L.Callback):
    """Looks at the loss before each backward pass.

    Args:
        run_dir: where skipped_batches.json goes.
        on_nonfinite: stop the run, or skip the step: its gradients are dropped, and what the forward pass did to the buffers
            (running statistics) is undone.
        most: steps that may be skipped in all.
        every_n_steps: steps between two looks. Each look waits for the device; on a GPU with a tiny network more than 1 can be
            worth it, and up to that many updates may then have been made with such a loss (none is ever saved).
    """

    def __init__(
        self, run_dir: str, on_nonfinite: Literal["stop", "skip"] = "stop", most: int = 3, every_n_steps: int = 1
    ) -> None:
        self.path, self.skips, self.most, self.every = (
            Path(run_dir) / "skipped_batches.json",
            on_nonfinite == "skip",
            most,
            every_n_steps,
        )
        self.skipped: list[dict[str, Any]] = []
        self.last: tuple[int, float] | None = None  # step and value of the last loss that was finite
        self._drop = False
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._calls = 0

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = list(state["skipped"])

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if self.skips:
            self._buffers = [(buffer, buffer.clone()) for buffer in task.net.buffers()]

    def on_before_backward(self, trainer: L.Trainer, task: L.LightningModule, loss: Tensor) -> None:
        self._calls += 1
        if self._calls % self.every and self.every > 1:
            return
        value = loss.item() * trainer.accumulate_grad_batches
        if trainer.world_size > 1:  # every rank has to stop, or to leave the step out, where one has to
            worst = torch.tensor(float(math.isfinite(value)), device=loss.device)
            torch.distributed.all_reduce(worst, torch.distributed.ReduceOp.MIN)
            value = value if worst.item() else math.nan if math.isfinite(value) else value
        if math.isfinite(value):
            self.last = (trainer.global_step, value)
            return
        if self.skips and len(self.skipped) < self.most:
            self._drop = True
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        before = f", the last finite loss was {self.last[1]:.4g} at step {self.last[0]}" if self.last else ""
        culprit = _first_nonfinite(task.net)
        raise NumericalError(
            f"the loss is {value}" + (f", after {len(self.skipped)} skipped steps" if self.skipped else ""),
            where=f"step {trainer.global_step}, epoch {trainer.current_epoch}, lr {rate:.4g}{before}"
            + (f"; not finite: {culprit}" if culprit else "; all weights are finite"),
            safe="the weights were not changed by it; the checkpoints written before it",
            fix=FIX,
        )

    def on_before_optimizer_step(self, trainer: L.Trainer, task: L.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        if not self._drop:
            return
        self._drop = False
        for parameter in task.parameters():
            parameter.grad = None  # an optimizer leaves such a parameter as it is, its momentum too
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self.skipped.append({"step": trainer.global_step, "epoch": trainer.current_epoch, "batch": trainer.fit_loop.batch_idx})
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.skipped, indent=2) + "\n", encoding="utf-8")


def _first_nonfinite(net: torch.nn.Module) -> str:
    """The first parameter or buffer that holds a NaN or an infinity, "" where none does."""
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if not torch.isfinite(tensor.detach().float()).all():
            return name
    return ""
