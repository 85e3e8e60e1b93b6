"""The trials of a search, in an Optuna study: what is tried next, which is hopeless, and what counts.

A trial that was interrupted, or whose driver is gone, stays in the study as failed and counts for nothing; one with the same
number and the same values takes its place and goes on from its checkpoint. What is drawn depends on the seed, the number and
the trials that are done, not on which process draws it: a search that was interrupted tries what it would have tried.
"""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from dlzoo import driver, jobs
from dlzoo.driver import Record

__all__ = ["Search", "distribution"]

STATUS = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def distribution(space: Mapping[str, Any]) -> BaseDistribution:
    """Optuna's form of a search space: {"choices": [...]} or {"low", "high", "log", "step"}, whole numbers or not."""
    if "choices" in space:
        return CategoricalDistribution(space["choices"])
    whole = isinstance(space["low"], int) and isinstance(space["high"], int)
    kind = IntDistribution if whole else FloatDistribution
    step = {"step": space["step"]} if space.get("step") else {}
    return kind(space["low"], space["high"], log=bool(space.get("log")), **step)


class _Lock:
    """The sweep's own lock in place of the journal's, which a killed process would leave behind."""

    def __init__(self, lock: FileLock) -> None:
        self.lock = lock

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


class Search:
    """A study of Optuna as a source of jobs.

    Args:
        folder: of the sweep.
        metric: what the trials are judged by.
        mode: "min" or "max".
        space: config key -> search space, as for `distribution`.
        total: the number of trials that count.
        seed: of the sampler.
        storage: "journal" or "sqlite", a file in the folder.
        sampler: "tpe" or "random".
        pruner: "median", "halving" or "none".
        startup: trials before anything is judged by earlier ones.
        warmup: validations of a trial before it may be stopped.
    """

    watches = True

    def __init__(
        self,
        folder: Path,
        metric: str,
        mode: str,
        space: Mapping[str, Mapping[str, Any]],
        total: int,
        seed: int,
        storage: str = "journal",
        sampler: str = "tpe",
        pruner: str = "median",
        startup: int = 5,
        warmup: int = 1,
    ) -> None:
        self.folder, self.metric, self.mode, self.total, self.seed = folder, metric, mode, total, seed
        self.sampler, self.startup = sampler, startup
        self.space = {key: distribution(one) for key, one in space.items()}
        self.lock = FileLock(folder / "lock")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with self.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.storage = optuna.storages.get_storage(_storage(folder, storage, self.lock))
            self.study = optuna.create_study(
                study_name=folder.name,
                storage=self.storage,
                direction="minimize" if mode == "min" else "maximize",
                pruner=_pruner(pruner, startup, warmup),
                load_if_exists=True,
            )
        self.trials: dict[int, optuna.Trial] = {}  # those that run here, by their number among those that count

    def claim(self, worker: str) -> Record | None:
        """The trial of a driver that is gone, or a new one while there is one to come."""
        with self.lock:
            self._take_over()
            trials = self.study.get_trials(deepcopy=False)
            numbers = {trial.user_attrs["number"] for trial in trials if _counts(trial)}
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            if not waiting and len(numbers) >= self.total:
                return None
            number = waiting[0].user_attrs["number"] if waiting else max(numbers, default=0) + 1
            self.study.sampler = self._sampler(number)
            trial = self.study.ask(self.space)
            before = trial.user_attrs.get("run_dir")
            record = Record(number, [f"{key}={_text(value)}" for key, value in trial.params.items()], "running", worker=worker)
            record.seconds = float(trial.user_attrs.get("seconds", 0.0))
            record.run_dir = driver.place(self.folder, number, before)
            self.trials[number] = trial
            for key, value in {"number": number, "run_dir": record.run_dir, "worker": worker}.items():
                trial.set_user_attr(key, value)
        return record

    def report(self, record: Record, step: int, value: float) -> bool:
        """Notes the value of a validation; whether the trial has no hope."""
        if not math.isfinite(value):
            return False
        trial = self.trials[record.number]
        trial.report(value, step)
        return trial.should_prune()

    def finish(self, record: Record) -> None:
        trial = self.trials.pop(record.number)
        with self.lock:
            self._end(self.study.trials[trial.number], record)

    def records(self) -> list[Record]:
        """The newest trial of each number."""
        newest = {trial.user_attrs["number"]: trial for trial in self.study.trials if "number" in trial.user_attrs}
        return [self._record(newest[number]) for number in sorted(newest)]

    def _record(self, trial: FrozenTrial) -> Record:
        known = trial.user_attrs
        status = STATUS[trial.state]
        if "again" in known or (status == "running" and not driver.alive(self.folder, known.get("worker", ""))):
            status = "interrupted"
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        return Record(
            number=known["number"],
            overrides=[f"{key}={_text(value)}" for key, value in params.items()],
            status="interrupted" if status == "waiting" else status,
            value=trial.value if trial.value is not None and math.isfinite(trial.value) else None,
            metrics=known.get("metrics", {}),
            seconds=known.get("seconds", 0.0),
            run_dir=known.get("run_dir"),
            reason=known.get("reason", ""),
            worker=known.get("worker", ""),
        )

    def _take_over(self) -> None:
        """Settles the trials whose driver is gone: those that came to their end count, the others are begun again."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker", "")
            if driver.alive(self.folder, worker):
                continue
            if not worker:  # gone before it had a number
                self.study.tell(trial.number, state=TrialState.FAIL)
                continue
            record = self._record(trial)
            record.status = "interrupted"
            if record.run_dir and jobs.finished(Path(record.run_dir)):
                record.status = "finished"
                driver.taken(record, self.metric, self.mode)
            self._end(trial, record)

    def _end(self, trial: FrozenTrial, record: Record) -> None:
        """Writes down how a trial ended; one that was interrupted is put in line again, with the same values."""
        if record.status == "finished" and record.value is None:
            record.status, record.reason = "failed", f"{self.metric} was never measured"
        attributes: dict[str, Any] = {"seconds": record.seconds, "metrics": record.metrics, "reason": record.reason}
        if record.status == "interrupted":
            ahead = {other.user_attrs.get("number") for other in self.study.get_trials(states=(TrialState.WAITING,))}
            if record.number not in ahead:  # a driver may be killed between this line and the last one
                kept = {"number": record.number, "run_dir": record.run_dir, "seconds": record.seconds}
                self.study.enqueue_trial(trial.params, user_attrs=kept)
            attributes["again"] = True
        for key, value in attributes.items():
            self.storage.set_trial_user_attr(trial._trial_id, key, value)
        if record.status == "finished":
            self.study.tell(trial.number, record.value)
        elif record.status == "pruned":
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = (self.seed + number) % 2**32  # of its own for each, or a second driver would draw what the first has drawn
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup, constant_liar=True)


def _counts(trial: FrozenTrial) -> bool:
    return "number" in trial.user_attrs


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _storage(folder: Path, kind: str, lock: FileLock) -> Any:
    if kind == "sqlite":
        return f"sqlite:///{(folder / 'study.sqlite').resolve()}"
    return JournalStorage(JournalFileBackend(str(folder / "study.jsonl"), lock_obj=_Lock(lock)))


def _pruner(kind: str, startup: int, warmup: int) -> optuna.pruners.BasePruner:
    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup + 1)
    if kind == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=warmup + 1)
    return optuna.pruners.NopPruner()
