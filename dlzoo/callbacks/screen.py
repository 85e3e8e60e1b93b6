"""The screen: a bar on a terminal, tqdm in a notebook, plain lines in a log."""

import logging
import sys
import time
from typing import Any, Protocol

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("dlzoo")

REDRAW = 0.25  # seconds between two looks at the bar: it follows the clock, not the steps
PLAIN = 30.0  # seconds between two plain lines within an epoch


class Bar(Protocol):
    """One way to show how far an epoch is."""

    interval: float

    def start(self, text: str, total: int) -> None: ...
    def update(self, done: int, text: str) -> None: ...
    def stop(self) -> None: ...
    def print(self, line: str) -> None: ...


class Screen(L.Callback):
    """Shows the epoch in progress, and leaves one line for each epoch.

    Args:
        every: seconds between two looks at the bar; null takes what suits the screen.
    """

    def __init__(self, every: float | None = None) -> None:
        self.every = every
        self.bar: Bar | None = None
        self._next = 0.0
        self._started = 0.0
        self._validated = False  # since the last line: Lightning keeps the metrics of a validation until the next

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero and self.bar is None:
            self.bar = choose_bar()
            self.every = self.every if self.every is not None else self.bar.interval

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.fit_loop.restarted_mid_epoch:  # its beginning was another process's
            self.on_train_epoch_start(trainer, task)

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.bar:
            self._started = time.monotonic()
            self._next = self._started + self.every
            total = trainer.num_training_batches
            self.bar.start(f"epoch {_epoch(trainer)}", total if total != float("inf") else 0)

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.bar and (now := time.monotonic()) >= self._next:
            self._next = now + self.every
            self.bar.update(batch_idx + 1, f"loss {outputs['loss'].item():.4f}")

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.bar:
            self.bar.stop()
            line = self._line(trainer, task)
            self.bar.print(line)
            log.debug(line)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        if self.bar:
            self.bar.stop()

    def _line(self, trainer: L.Trainer, task: L.LightningModule) -> str:
        metrics = trainer.callback_metrics.items() if self._validated else ()
        self._validated = False
        judged = getattr(task, "logged", dict(metrics))  # what is the same in every epoch, such as a baseline, is left out
        shown = {name: value.item() for name, value in metrics if name.startswith("val/") and name in judged}
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in sorted(shown.items(), reverse=True))
        return "  ".join(filter(None, (f"epoch {_epoch(trainer)}", numbers, f"{time.monotonic() - self._started:.1f} s")))


def choose_bar() -> Bar:
    """The bar that suits where the output goes."""
    if "ipykernel" in sys.modules or "google.colab" in sys.modules:
        return NotebookBar()
    console = Console(highlight=False)
    return TerminalBar(console) if console.is_terminal else PlainBar(console)


class TerminalBar:
    """A bar that is drawn over."""

    interval = REDRAW

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self.text, self.total = "", 0

    def start(self, text: str, total: int) -> None:
        self.stop()
        self.text, self.total = text, total  # the bar comes with the first update: an epoch that is over by then needs none

    def update(self, done: int, text: str) -> None:
        if self.progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
            self.progress = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True, auto_refresh=False)
            self.row = self.progress.add_task(self.text, total=self.total or None, loss="")
            self.progress.start()
        self.progress.update(self.row, completed=done, loss=text)
        self.progress.refresh()

    def stop(self) -> None:
        if self.progress:
            self.progress.stop()
            self.progress = None

    def print(self, line: str) -> None:
        self.console.print(line)


class NotebookBar:
    """tqdm's widget; rich's bar floods a notebook."""

    interval = REDRAW

    def __init__(self) -> None:
        self.bar: Any = None

    def start(self, text: str, total: int) -> None:
        from tqdm.auto import tqdm

        self.stop()
        self.bar = tqdm(total=total or None, desc=text, leave=False)

    def update(self, done: int, text: str) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(done - self.bar.n)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def print(self, line: str) -> None:
        print(line, flush=True)


class PlainBar:
    """A line now and then, for logs."""

    interval = PLAIN

    def __init__(self, console: Console) -> None:
        self.total = 0
        self.text = ""

    def start(self, text: str, total: int) -> None:
        self.text, self.total = text, total

    def update(self, done: int, text: str) -> None:
        self.print(f"{self.text}  step {done}/{self.total or '?'}  {text}")

    def stop(self) -> None:
        """Nothing stays open."""

    def print(self, line: str) -> None:
        print(line, flush=True)


def _epoch(trainer: L.Trainer) -> str:
    last = trainer.max_epochs
    return f"{trainer.current_epoch + 1}/{last}" if last and last > 0 else f"{trainer.current_epoch + 1}"
