"""The numbers of a forecast against formulas in NumPy, with missing targets, in uneven batches, beside baselines."""

import functools

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from dlzoo.optim.schedules import constant
from dlzoo.tasks.forecasting import Forecasting, MeanError

WINDOWS, HISTORY, HORIZON, TARGETS = 7, 5, 3, 2
SCALE, OFFSET = np.array([2.0, 10.0]), np.arange(40.0).reshape(20, 2)
SEASON = np.array([1.5, 20.0])


class Mean(nn.Module):
    """Forecasts a multiple of the mean of the past."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return (self.factor * x.mean(1, keepdim=True)).expand(-1, HORIZON, -1)


class Batches:
    """A loader of these batches; Lightning takes a bare list for several loaders."""

    def __init__(self, batches) -> None:
        self.batches = list(batches)

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Data(L.LightningDataModule):
    """Those batches, of series with units and a baseline that always says its row."""

    season_error, rivals = SEASON, ("row",)

    def __init__(self, batches) -> None:
        super().__init__()
        self.val_dataloader = self.test_dataloader = lambda: Batches(batches)

    def in_units(self, y, at):
        rows = at[:, None] + torch.arange(HORIZON)
        return y * torch.tensor(SCALE).float() + torch.tensor(OFFSET).float()[rows]

    def baselines(self, at, stage):
        assert stage in ("val", "test")
        return {"row": at[:, None, None].float().expand(-1, HORIZON, TARGETS)}


def task(**options) -> Forecasting:
    return Forecasting(Mean(), functools.partial(torch.optim.SGD, lr=0.1), constant, **options)


def samples():
    random = np.random.default_rng(0)
    x = random.normal(size=(WINDOWS, HISTORY, TARGETS)).astype(np.float32)
    y = random.normal(size=(WINDOWS, HORIZON, TARGETS)).astype(np.float32)
    y[4, 1:] = np.nan  # means over windows are not means over targets
    y[5] = np.nan
    return torch.from_numpy(x), torch.from_numpy(y), torch.arange(WINDOWS) + 5


def measured(sizes: list[int], stage: str, units: bool = True, **options) -> dict[str, float]:
    batches = list(zip(*(each.split(sizes) for each in samples()), strict=True))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    run = trainer.test if stage == "test" else trainer.validate
    run(task(**options), **({"datamodule": Data(batches)} if units else {"dataloaders": Batches(batches)}), verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def expected(units: bool = True) -> dict[str, float]:
    x, y, at = (each.numpy().astype(np.float64) for each in samples())
    far = 0.5 * x.mean(1, keepdims=True) - y
    known = ~np.isnan(y)
    scale, season = (SCALE, SEASON) if units else (1.0, 1.0)
    error = np.abs(far) * scale
    found = {
        "mae": error[known].mean(),
        "rmse": np.sqrt((error[known] ** 2).mean()),
        "mase": (error / season)[known].mean(),
        "scaled_mse": (far[known] ** 2).mean(),
        "scaled_mae": np.abs(far[known]).mean(),
    }
    if units:
        rows = at.astype(int)[:, None] + np.arange(HORIZON)
        found["mae_row"] = np.abs(at[:, None, None] - (y * SCALE + OFFSET[rows]))[known].mean()
    return found


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1] * 7], ids=["one", "uneven", "single"])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_are_the_formulas_however_the_batches_fall(sizes, stage):
    metrics = measured(sizes, stage)
    assert set(metrics) == {f"{stage}/{name}" for name in (*expected(), "loss")}
    for name, value in expected().items():
        assert metrics[f"{stage}/{name}"] == pytest.approx(value, rel=1e-5), name


def test_without_a_datamodule_units_are_those_of_the_targets():
    metrics = measured([7], "test", units=False)
    for name, value in expected(units=False).items():
        assert metrics[f"test/{name}"] == pytest.approx(value, rel=1e-5), name
    assert not [name for name in metrics if "mae_" in name]


@pytest.mark.parametrize(("loss", "name"), [("mse", "scaled_mse"), ("mae", "scaled_mae"), ("huber", "")])
def test_the_loss_is_the_one_that_was_asked_for_and_sees_no_missing_target(loss, name):
    x, y, at = samples()
    model = task(loss=loss)
    trained = model.training_step((x, y, at), 0)
    assert measured([3, 4], "val", loss=loss)["val/loss"] == pytest.approx(trained.item(), rel=1e-5)
    far = np.abs((0.5 * x.mean(1, keepdim=True) - y).numpy())
    huber = np.where(far < 1, far**2 / 2, far - 0.5)[~np.isnan(far)].mean()
    assert trained.item() == pytest.approx(expected()[name] if name else huber, rel=1e-5)
    trained.backward()
    before = model.net.factor.grad.clone()
    assert before.isfinite() and before != 0
    model.net.factor.grad = None
    x[5] += 100  # nothing is known of what comes after it
    model.training_step((x, y, at), 0).backward()
    torch.testing.assert_close(model.net.factor.grad, before)


def test_a_batch_without_any_known_target_teaches_nothing():
    x, y, at = samples()
    model = task()
    model.training_step((x, torch.full_like(y, torch.nan), at), 0).backward()
    assert model.net.factor.grad == 0


def test_a_mean_of_nothing_is_seen():
    error = MeanError()
    error.update(torch.zeros(0))
    assert error.compute().isnan()


def test_it_says_what_it_logs_and_how_it_answers():
    names = ("loss", "mae", "rmse", "mase", "scaled_mse", "scaled_mae")
    assert set(task().logged) == {f"{stage}/{name}" for stage in ("val", "test") for name in names}
    assert Forecasting.answers == "forecast" and task(loss="mae").hparams["loss"] == "mae"
    with pytest.raises(ValueError, match="loss must be one of"):
        task(loss="median")
