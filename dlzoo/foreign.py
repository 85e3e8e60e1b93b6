"""What a config may hand to other libraries: which of their names it may call, with the types and ranges of the arguments.

The annotations stay text (the __future__ below) and are read by schema.py. A name that is not in FOREIGN is never called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

PositiveInt = NonNegativeInt = int
PositiveFloat = NonNegativeFloat = Fraction = float


@dataclass
class Trainer:
    """lightning.Trainer, as far as a config sets it."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: PositiveInt | str | list[int] = "auto"
    num_nodes: PositiveInt = 1
    strategy: str | dict = "auto"  # a name of Lightning's, or one of dlzoo.strategies
    precision: Literal["auto", 32, 64, "32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true"] = 32
    max_epochs: PositiveInt | Literal[-1] | None = None
    min_epochs: NonNegativeInt | None = None
    max_steps: NonNegativeInt | Literal[-1] = -1
    max_time: str | None = None
    accumulate_grad_batches: PositiveInt = 1
    gradient_clip_val: NonNegativeFloat | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    limit_train_batches: NonNegativeFloat | None = None
    limit_val_batches: NonNegativeFloat | None = None
    limit_test_batches: NonNegativeFloat | None = None
    overfit_batches: NonNegativeFloat = 0.0
    fast_dev_run: bool | PositiveInt = False
    val_check_interval: PositiveFloat | None = None
    check_val_every_n_epoch: PositiveInt | None = 1
    num_sanity_val_steps: int = 0
    log_every_n_steps: PositiveInt = 10
    deterministic: bool | Literal["warn"] = False
    benchmark: bool | None = None
    detect_anomaly: bool = False
    sync_batchnorm: bool = False
    inference_mode: bool = True
    profiler: Literal["simple", "advanced", "pytorch"] | None = None


@dataclass
class SGD:
    """torch.optim.SGD."""

    lr: PositiveFloat = 1e-3
    momentum: Fraction = 0.0
    dampening: NonNegativeFloat = 0.0
    weight_decay: NonNegativeFloat = 0.0
    nesterov: bool = False
    fused: bool | None = None
    foreach: bool | None = None
    maximize: bool = False


@dataclass
class AdamW:
    """torch.optim.AdamW."""

    lr: PositiveFloat = 1e-3
    betas: list[Fraction] = field(default_factory=lambda: [0.9, 0.999])
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01
    amsgrad: bool = False
    fused: bool | None = None
    foreach: bool | None = None
    maximize: bool = False


@dataclass
class Adam(AdamW):
    """torch.optim.Adam: the decay is part of the gradient."""

    weight_decay: NonNegativeFloat = 0.0
    decoupled_weight_decay: bool = False


@dataclass
class RMSprop:
    """torch.optim.RMSprop."""

    lr: PositiveFloat = 1e-2
    alpha: Fraction = 0.99
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    momentum: Fraction = 0.0
    centered: bool = False
    foreach: bool | None = None
    maximize: bool = False


@dataclass
class ModelCheckpoint:
    """lightning.pytorch.callbacks.ModelCheckpoint."""

    dirpath: str
    filename: str | None = None
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    save_last: bool | Literal["link"] | None = None
    save_top_k: int = 1
    save_weights_only: bool = False
    auto_insert_metric_name: bool = True
    every_n_train_steps: PositiveInt | None = None
    every_n_epochs: PositiveInt | None = None
    save_on_train_epoch_end: bool | None = None
    enable_version_counter: bool = True


@dataclass
class EarlyStopping:
    """lightning.pytorch.callbacks.EarlyStopping."""

    monitor: str
    mode: Literal["min", "max"] = "min"
    patience: PositiveInt = 3
    min_delta: NonNegativeFloat = 0.0
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    check_finite: bool = True
    check_on_train_epoch_end: bool | None = None
    strict: bool = True
    verbose: bool = False


FOREIGN: dict[str, type] = {
    "lightning.Trainer": Trainer,
    "torch.optim.SGD": SGD,
    "torch.optim.AdamW": AdamW,
    "torch.optim.Adam": Adam,
    "torch.optim.RMSprop": RMSprop,
    "lightning.pytorch.callbacks.ModelCheckpoint": ModelCheckpoint,
    "lightning.pytorch.callbacks.EarlyStopping": EarlyStopping,
}
