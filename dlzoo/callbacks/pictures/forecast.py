"""What a run of a forecast shows: windows with the past, the truth and what was forecast, and the error of each step ahead."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlzoo.plots import figure
from dlzoo.plots.forecast import Window, error_by_step, forecasts

__all__ = ["ForecastPictures"]

SHOWN = 6  # windows of a figure
PAST = 3  # of what came before, so many horizons and at least so many rows are drawn
ROWS = 24

Kept = tuple[int, dict[str, Tensor]]  # the row at which a window begins, and what was forecast of it


class ForecastPictures:
    """Draws forecast.png, windows from everywhere in the evaluation, and horizon.png, the error of each step ahead; writes
    example.csv, the newest rows of the series, for `dlzoo forecast`.

    Args:
        folder: where they go.
        title: over the pictures.
        data: the datamodule: its dates, values, columns and windows.
        mistakes: of no use here; all kinds of pictures are made alike.
    """

    def __init__(self, folder: Path, title: str, data: Any, mistakes: int) -> None:
        self.folder, self.title, self.data = folder, title, data
        self.clear()

    def first(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """The table that the network can be asked of when it is trained."""
        self.data.write_example(self.folder / "example.csv")

    def clear(self) -> None:
        """Forgets the last evaluation."""
        self._kept: list[Kept] = []
        self._sums: dict[str, Tensor] = {}  # name -> absolute errors by step and target (H, K)
        self._known: Tensor | None = None
        self._wanted: set[int] | None = None

    def watch(self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """Adds up the errors of an evaluated batch, and keeps the windows that will be shown.

        Args:
            outputs: of the step: truth (B, H, K), NaN where it is not known, forecast, and what each baseline forecasts.
            batch: inputs, scaled targets, and the rows at which those begin.
        """
        truth, starts = outputs["truth"], batch[2]
        known = ~truth.isnan()
        self._known = known.sum(0) if self._known is None else self._known + known.sum(0)
        for name, values in outputs.items():
            if name != "truth":
                error = (values - truth).abs().nan_to_num().sum(0)
                self._sums[name] = self._sums[name] + error if name in self._sums else error
        if self._wanted is None:
            self._wanted = self._chosen(int(starts[0]))
        for place, start in enumerate(starts.tolist()):
            if start in self._wanted:
                self._kept.append((start, {name: values[place].cpu() for name, values in outputs.items()}))

    def gather(self, strategy: Any) -> None:
        """Adds up what the ranks have counted; every rank takes part. The windows are those of the first rank."""
        if self._known is not None:
            self._known = strategy.reduce(self._known, reduce_op="sum")
            self._sums = {name: strategy.reduce(total, reduce_op="sum") for name, total in self._sums.items()}

    def draw(self, split: str) -> None:
        """The pictures of the evaluation that was watched."""
        if self._known is None:
            return
        dates, values, columns = self.data.dates, self.data.values, self.data.columns
        past = min(max(PAST * self.data.horizon, ROWS), self.data.history)
        names = [name for name in ("seasonal", "ar", "climatology") if name in self._sums][:2]
        windows = []
        for start, found in sorted(self._kept, key=lambda kept: kept[0])[:SHOWN]:
            shown = {"forecast": found["forecast"]} | {name: found[name] for name in names}
            before, after = slice(max(start - past, 0), start), slice(start, start + self.data.horizon)
            lines = {name: line[:, 0].numpy() for name, line in shown.items()}
            windows.append(Window(dates[before], values[before, 0], dates[after], found["truth"][:, 0].numpy(), lines))
        title = f"{self.title}, {split}: {columns.targets[0]}"
        figure.save(forecasts(windows, title), self.folder / "forecast.png")
        count = self._known.clamp(min=1)
        errors = {name: (total / count)[:, 0].cpu().numpy() for name, total in self._sums.items()}
        figure.save(error_by_step(errors, f"{title}, mean absolute error"), self.folder / "horizon.png")

    def _chosen(self, first: int) -> set[int]:
        """Windows from everywhere in the part that begins with row `first`: the middle of each of its sixths."""
        for split in ("val", "test"):
            starts = self.data.windows(split)
            if int(starts[0]) <= first <= int(starts[-1]):
                places = (torch.arange(SHOWN) + 0.5) / SHOWN * len(starts)
                return set(starts[places.long()].tolist())
        return set()
