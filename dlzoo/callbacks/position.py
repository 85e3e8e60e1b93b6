"""Where a run stands: Lightning's counters brought into one of three forms, from which it goes on exactly.

Lightning notes its counters wherever a checkpoint happens to be saved, and guesses from them what was left to do; some of what
is due then is skipped (a validation after the last batch) or done twice. Here a checkpoint is only saved between two steps, and
its counters are written as they stand at one of these places:

    batch       a batch is done, and whatever followed it; the next one comes
    validation  a batch is done, and the validation after it is still to come
    epoch       an epoch is done; the next one comes
"""

from typing import Any, Literal

import lightning as L

Position = Literal["batch", "validation", "epoch"]


def place(trainer: L.Trainer, validated: bool) -> Position:
    """The place after the batch that has just ended.

    Args:
        trainer: in `on_train_batch_end` or `on_validation_*` of the fit.
        validated: whether the validation that may be due has been made.
    """
    loop = trainer.fit_loop.epoch_loop
    if not validated and loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
        return "validation"
    return "epoch" if loop._num_ready_batches_reached() else "batch"


def write(trainer: L.Trainer, loops: dict[str, Any], position: Position, counted: bool) -> None:
    """Brings the counters of a checkpoint into the form of a position.

    Args:
        trainer: whose checkpoint it is.
        loops: checkpoint["loops"]["fit_loop"], changed in place.
        position: as `place` gives it.
        counted: whether Lightning has counted the batch among those that stepped (it does so after the validation).
    """
    fit, epoch = trainer.fit_loop, loops["epoch_progress"]
    done = fit.epoch_progress.total.ready - (0 if position == "epoch" else 1)  # epochs, this one included at its end
    for scope in ("total", "current"):
        begun = done + (position != "epoch")
        epoch[scope].update(ready=begun, started=begun, processed=done, completed=done)
    batches = loops["epoch_loop.batch_progress"]
    total, ready = batches["total"]["ready"], batches["current"]["ready"]
    batches["total"].update(ready=total, started=total, processed=total, completed=total)
    ready = 0 if position == "epoch" else ready
    batches["current"].update(ready=ready, started=ready, processed=ready, completed=ready)
    batches["is_last_batch"] = position == "validation" and fit.epoch_loop._num_ready_batches_reached()
    stepped = fit.epoch_loop._batches_that_stepped
    if position != "validation" and not counted:
        stepped += 1
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = stepped
    seen = loops["epoch_loop.val_loop.batch_progress"]
    # Lightning takes up a validation whose counters say that a batch was begun and not ended
    ended = seen["total"]["completed"]
    seen["total"].update(ready=ended, started=ended, processed=ended, completed=ended)
    seen["current"].update(ready=0, started=0, processed=0, completed=0)
    if position == "validation":
        seen["total"].update(ready=ended + 1, started=ended + 1)
    seen["is_last_batch"] = False


def read(trainer: L.Trainer, position: Position) -> None:
    """Keeps Lightning from doing twice, or leaving out, what follows a position; in `on_train_start` of a resumed run."""
    fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    states, fit._combined_loader_states_to_load = fit._combined_loader_states_to_load, []
    if position == "epoch":
        loop.restarting = loop.val_loop.restarting = False
        return
    # Lightning does it when it sets the data up, which is before it has read them if the schedule asked for the number of steps
    fit._combined_loader._load_state_dicts(states)
    if position == "batch" and loop._should_check_val_fx(fit._data_fetcher):
        loop._batches_that_stepped -= 1  # it passes through the end of a batch once more, where it counts
