"""What the tasks with labels share: a network, its optimizer and schedule, and one evaluation for validation and test."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dlzoo.optim.groups import parameter_groups

__all__ = ["Supervised"]


class Supervised(L.LightningModule):
    """A network trained on (x, y); a subclass fills `metrics`, and says what a step and an evaluation are.

    Args:
        net: the network.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the schedule from the optimizer and the number of steps; it is stepped every batch.
        decay_norms_and_biases: False keeps the optimizer's weight decay to the weights: see `optim.groups`.
    """

    answers: str  # "labels" or "masks": how the run report draws what the network says, and how `predict` tells it

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        decay_norms_and_biases: bool = True,
    ) -> None:
        super().__init__()
        self.net = net
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.decay_norms_and_biases = decay_norms_and_biases
        self.metrics = nn.ModuleDict()  # by names such as val_acc

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook here some forty times a step; torch would search each value for parameters
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def logged(self) -> list[str]:
        """The names of what validation and test log: what a run can be judged by."""
        return [name.replace("_", "/", 1) for name in self.metrics]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test")

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer(parameter_groups(self.net, self.decay_norms_and_biases))
        scheduler = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            # Lightning refuses a fused optimizer here, which would unscale after this; in bf16 nothing is scaled
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            super(MixedPrecision, plugin).clip_gradients(optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @abstractmethod
    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> dict[str, Tensor]:
        """Updates and logs the metrics of "val" or "test"; returns what the run report draws."""
