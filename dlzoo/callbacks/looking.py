"""Looking at a network in training, without touching it."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn

from dlzoo.callbacks.randomness import random_state, restore_random_state
from dlzoo.errors import ConfigError
from dlzoo.explain.pictures import Sample, evenly

log = logging.getLogger("dlzoo")


class Looking(L.Callback):
    """Keeps some validation samples and calls `look` with a copy of the network at the end of every validation.

    The copy is in fp32 on the CPU, no random number is drawn from the training's generators, and what does not apply to a
    network is said once and left out: a training with it ends in the same weights as one without.

    Args:
        run_dir: where the pictures go.
        samples: how many are kept.
    """

    def __init__(self, run_dir: str, samples: int = 8) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        self.dir, self.samples = Path(run_dir), samples
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._applies = True

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if stage == "fit" and isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise ConfigError(
                "no device holds the whole network, so that none can look at it",
                where=f"callbacks, trainer.strategy={type(trainer.strategy).__name__}",
                fix="dlzoo explain RUN, when the training is over",
            )

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._kept = []

    def on_validation_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        images, labels = batch
        some = evenly(-(-self.samples // int(trainer.num_val_batches[0])), len(labels))  # the files may lie class by class
        with torch.inference_mode(False):  # a tensor of inference mode has no gradients
            self._kept.append((images[some].detach().cpu().clone().float(), labels[some].cpu().clone()))

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.sanity_checking or not self._kept or not self._applies:
            return
        with self.aside(task.net) as net:
            self.look(trainer, net)

    def look(self, trainer: L.Trainer, net: nn.Module) -> None:
        """Draws, or keeps, what is wanted of the network."""
        raise NotImplementedError

    def kept(self) -> tuple[Tensor, Tensor]:
        """The inputs and labels that were kept of the validation, from everywhere in it."""
        images, labels = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        some = evenly(self.samples, len(labels))
        return images[some], labels[some]

    def sample(self, trainer: L.Trainer) -> Sample:
        """What was kept of the validation."""
        images, labels = self.kept()
        how = trainer.datamodule.preprocess
        colours = {key: value for key in ("mean", "std") if (value := getattr(how, key, None))}
        return Sample(images, trainer.datamodule.classes, labels.tolist() if labels.ndim == 1 else None, **colours)

    @contextmanager
    def aside(self, net: nn.Module) -> Iterator[nn.Module]:
        """A copy of the network to look at; nothing that happens to it is seen by the training."""
        state = random_state()
        try:
            with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
                yield copy.deepcopy(net).cpu().float().requires_grad_()
        except ConfigError as error:
            self._applies = False
            log.warning("%s: left out, %s", type(self).__name__, error.what)
        finally:
            restore_random_state(state)
