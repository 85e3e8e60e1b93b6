"""Forecasting: what comes next in a series, several steps of it at once."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from dlzoo.tasks.supervised import Supervised

__all__ = ["Forecasting", "MeanError"]

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}


class Forecasting(Supervised):
    """Trains any network that maps the past of a series to its future.

    Args:
        net: (B, T, F) -> (B, H, K), scaled as the targets are.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the schedule from the optimizer and the number of steps; it is stepped every batch.
        loss: of scaled targets: "mse" is the square, "mae" the absolute difference (its best answer is the median), "huber"
            the one near 0 and the other from 1 on.
        decay_norms_and_biases: False keeps the optimizer's weight decay to the weights: see `optim.groups`.

    Batch:
        (x, y, at): y is NaN where nothing is known, and counts nowhere there; at (B,) are the rows at which y begins.

    Logs:
        {val,test}/loss; in the data's own units {val,test}/mae, /rmse and /mase, the absolute error over that of the seasonal
        baseline in the training part, below 1 where it is smaller (Hyndman, Koehler 2006); {val,test}/scaled_mse and
        /scaled_mae, of scaled targets, by which papers compare. All are means over the known targets of all windows. For each
        of the data's baselines, on the same windows, {val,test}/mae_<name>. The training loss is the step's result: the run
        report logs its mean.

    Raises:
        ValueError: a loss of another name.
    """

    answers = "forecast"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        *,
        loss: Literal["mse", "mae", "huber"] = "mse",
        decay_norms_and_biases: bool = True,
    ) -> None:
        super().__init__(net, optimizer, scheduler, decay_norms_and_biases)
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        self.save_hyperparameters(ignore=["net", "optimizer", "scheduler"])  # plain numbers: a checkpoint holds no code
        self.loss = LOSSES[loss]
        for stage in ("val", "test"):
            for what in ("loss", "mae", "mase", "scaled_mse", "scaled_mae"):
                self.metrics[f"{stage}_{what}"] = MeanError()
            self.metrics[f"{stage}_rmse"] = MeanError(root=True)
        self.rivals = nn.ModuleDict()  # the baselines' errors, by the same kind of names: no run is judged by them
        self._season_error: Tensor | None = None

    def setup(self, stage: str) -> None:
        # of loaders without a datamodule of series nothing is known: there the units are those of the scaled targets
        names = getattr(self.trainer.datamodule, "rivals", ())
        for name in (f"{stage}_mae_{rival}" for stage in ("val", "test") for rival in names):
            if name not in self.rivals:
                self.rivals[name] = MeanError()
        error = getattr(self.trainer.datamodule, "season_error", None)
        self._season_error = None if error is None else torch.as_tensor(error, dtype=torch.float32)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y, _ = batch
        known = ~y.isnan()
        losses = self.loss(self.net(x).float(), y.nan_to_num(), reduction="none") * known
        return losses.sum() / known.sum().clamp(min=1)

    def _evaluate(self, batch: tuple[Tensor, Tensor, Tensor], stage: str) -> dict[str, Tensor]:
        x, y, at = batch
        known, scaled = ~y.isnan(), self.net(x).float()
        far = (scaled - y)[known]
        data: Any = self.trainer.datamodule if self.rivals else None
        truth, forecast = (data.in_units(part, at) for part in (y, scaled)) if data else (y, scaled)
        error = (forecast - truth).abs()
        season = torch.ones_like(error) if self._season_error is None else self._season_error.to(y.device).expand_as(error)
        for what, values in {
            "loss": self.loss(scaled[known], y[known], reduction="none"),
            "mae": error[known],
            "rmse": error[known].square(),
            "mase": (error / season)[known],
            "scaled_mse": far.square(),
            "scaled_mae": far.abs(),
        }.items():
            self._note(self.metrics[f"{stage}_{what}"], f"{stage}/{what}", values, len(y))
        shown = {"forecast": forecast, "truth": truth}
        for name, guess in data.baselines(at, stage).items() if data else ():
            self._note(self.rivals[f"{stage}_mae_{name}"], f"{stage}/mae_{name}", (guess - truth).abs()[known], len(y))
            shown[name] = guess
        return shown  # for the run report's pictures

    def _note(self, metric: Metric, name: str, values: Tensor, size: int) -> None:
        metric.update(values)
        # the run report hands them to the loggers, with the training loss, on one count of steps
        self.log(name, metric, on_step=False, on_epoch=True, logger=False, batch_size=size)


class MeanError(Metric):
    """The mean of all values of all batches, however many each has; of squares, its root where that is wanted."""

    total: Tensor
    count: Tensor

    def __init__(self, root: bool = False) -> None:
        super().__init__()
        self.root = root
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Adds the values of a batch: (any number,)."""
        self.total += values.sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        mean = self.total / self.count  # of nothing NaN: it has to be seen
        return mean.sqrt() if self.root else mean
