"""Transfer learning: a new head on weights that were trained elsewhere; first the head learns, then what is below it."""

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dlzoo.errors import ConfigError
from dlzoo.optim.groups import by_stage
from dlzoo.optim.stages import head_prefixes, stages

log = logging.getLogger("dlzoo")


class Transfer(L.Callback):
    """Freezes the stages of a network in front of its head, and gives earlier ones smaller rates once they are trained.

    What is frozen is in evaluation mode: the statistics of batch norm stay those of the weights, and dropout is off. Which
    stages those are depends on the epoch alone, so a run that goes on freezes what it would have frozen. `optim.stages` says
    what the stages of a network are.

    Source: Yosinski et al. 2014, arXiv 1411.1792 (how much layers transfer); Howard, Ruder 2018, arXiv 1801.06146, section 3.2
    (discriminative rates, gradual unfreezing).

    Args:
        mode: "finetune"; "frozen": only the head is ever trained; "scratch": this callback does nothing, and the run leaves
            `init_from` alone, so that one key tells the three apart.
        unfreeze_at: the first epoch, from 0, in which more than the head is trained.
        unfreeze_every: epochs until the next stage is trained too, from the last to the first; 0 frees all of them at once.
        rate_decay: the rate of a stage as a share of the next one's; 1 gives all the same.
        keep_statistics: the statistics of batch norm in front of the head stay as they are after unfreezing too, which helps
            where batches are small.

    Raises:
        ValueError: an unknown mode, a negative number of epochs, a rate_decay outside (0, 1].
    """

    def __init__(
        self,
        mode: Literal["finetune", "frozen", "scratch"] = "finetune",
        unfreeze_at: int = 2,
        unfreeze_every: int = 0,
        rate_decay: float = 0.5,
        keep_statistics: bool = False,
    ) -> None:
        if mode not in ("finetune", "frozen", "scratch"):
            raise ValueError(f"mode must be 'finetune', 'frozen' or 'scratch', got {mode!r}")
        if unfreeze_at < 0 or unfreeze_every < 0:
            raise ValueError(f"unfreeze_at and unfreeze_every must be 0 or above, got {unfreeze_at} and {unfreeze_every}")
        if not 0 < rate_decay <= 1:
            raise ValueError(f"rate_decay must be above 0 and at most 1, got {rate_decay}")
        self.mode, self.unfreeze_at, self.unfreeze_every = mode, unfreeze_at, unfreeze_every
        self.rate_decay, self.keep_statistics = rate_decay, keep_statistics
        self._stages: dict[str, list[str]] = {}
        self._before: tuple[Callable[..., Any], set[str]] | None = None  # the task's optimizer, and what was trained
        self._said = ""

    def trained(self, epoch: int) -> list[str]:
        """The stages that are trained in an epoch, the head last."""
        names = list(self._stages)
        if self.mode == "scratch":
            return names
        if self.mode == "frozen" or epoch < self.unfreeze_at:
            return names[-1:]
        if not self.unfreeze_every:
            return names
        return names[-(2 + (epoch - self.unfreeze_at) // self.unfreeze_every) :]

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if stage != "fit" or self.mode == "scratch":
            return
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise ConfigError(
                "a part of a network is frozen and freed on each device as a whole, and this strategy shards it",
                where=f"callbacks.transfer, trainer.strategy={type(trainer.strategy).__name__}",
                fix="trainer=ddp, or callbacks.transfer.mode=scratch",
            )
        if isinstance(trainer.strategy, DDPStrategy):  # else it waits for the gradients of what is frozen
            trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        try:
            self._stages = stages(task.net)
        except ValueError as error:
            raise ConfigError(str(error), where="callbacks.transfer", fix="callbacks.transfer.mode=scratch") from error
        self._before = task.optimizer, {name for name, parameter in task.net.named_parameters() if parameter.requires_grad}
        task.optimizer = functools.partial(by_stage, build=task.optimizer, net=task.net, decay=self.rate_decay)

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._freeze(trainer, task.net)  # a run that goes on within an epoch does not start that epoch

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._freeze(trainer, task.net)

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if self._before is None or stage != "fit":
            return
        task.optimizer, trained = self._before
        for name, parameter in task.net.named_parameters():
            parameter.requires_grad_(name in trained)
        self._before = None

    def _freeze(self, trainer: L.Trainer, net: nn.Module) -> None:
        if self._before is None:
            return
        trained, free = self.trained(trainer.current_epoch), set()
        for stage in trained:
            free.update(self._before[1].intersection(self._stages[stage]))
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in free)
            if name not in free:
                parameter.grad = None  # the optimizer passes over it, decay and momentum too
        evaluate_frozen(net)
        head, all_trained = head_prefixes(net), len(trained) == len(self._stages)
        for name, module in net.named_modules():
            # a norm without parameters is in no stage: it waits until all are trained
            waits = self.keep_statistics or (not all_trained and not list(module.parameters()))
            if waits and isinstance(module, _NormBase) and not name.startswith(head):
                module.eval()
        if trainer.is_global_zero:
            self._say(net, "all of the network" if all_trained else " ".join(trained), trainer.current_epoch)

    def _say(self, net: nn.Module, what: str, epoch: int) -> None:
        count = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
        if what != self._said:
            log.info("epoch %d: %s is trained, %s parameters", epoch + 1, what, f"{count:,}")
        self._said = what


def evaluate_frozen(net: nn.Module) -> None:
    """Training mode, but for every module all of whose parameters are frozen: that, and all in it, is in evaluation mode."""
    net.train()
    for module in net.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
