"""Where the time of a training step goes."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from dlzoo.errors import StorageError


class Profile(L.Callback):
    """torch's profiler over the training steps after the first few; the table goes to profile.txt.

    Args:
        run_dir: where the table goes.
        skip: steps that are not counted, while caches fill.
        rows: lines of the table.
    """

    def __init__(self, run_dir: str, skip: int = 5, rows: int = 40) -> None:
        self.path, self.skip, self.rows = Path(run_dir) / "profile.txt", skip, rows
        self.profiler: profile | None = None

    def on_train_batch_start(self, trainer: L.Trainer, task: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.is_global_zero and self.profiler is None and batch_idx >= self.skip:
            activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
            self.profiler = profile(activities=activities)
            self.profiler.__enter__()

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.profiler is None:
            return
        self.profiler.__exit__(None, None, None)
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self.profiler.key_averages().table(sort_by=by, row_limit=self.rows)
        try:
            self.path.write_text(table, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"profile.txt can not be written: {error.strerror}", where=str(self.path)) from error
