"""Sweeps: every job is a process and a directory, whatever happens to the others, to the driver, or to the whole machine.

Most tests start real drivers whose jobs are tests/fake_training.py, which is ready at once; the slow ones train for real.
"""

import contextlib
import csv
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlzoo import cli, driver, jobs, sweep, tally
from dlzoo.driver import Worker
from dlzoo.errors import ConfigError
from dlzoo.grid import Grid
from dlzoo.jobs import Job

pytest.importorskip("optuna", reason="the extra sweep is not installed")

ROOT = Path(__file__).resolve().parent.parent
# `dlzoo`, except for what a job is started by; it fails if the driver has imported what only a training needs
DOOR = f"""
import functools, sys
from dlzoo import cli, sweep
sweep.run = functools.partial(sweep.run, command=(sys.executable, {str(ROOT / "tests" / "fake_training.py")!r}))
code = cli.main(sys.argv[1:])
sys.exit(code if not {{"torch", "lightning"}} & set(sys.modules) else "torch was imported")
"""
RATE = "optimizer.lr=tag(log,interval(1e-3,1))"
SEARCH = ("sweep", "hparams_search=plain", RATE, "hparams_search.n_trials=8")


class Driver:
    """A driver in a process of its own."""

    def __init__(self, *words, cwd, door=DOOR, **variables):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
        program = [sys.executable, "-c", door, *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(program, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)

    def until(self, beginning):
        """Reads its output up to a line."""
        for line in self.process.stdout:
            if line.startswith(beginning):
                return
        pytest.fail(f"no line {beginning!r}: {self.process.stderr.read()}")

    def end(self, timeout=60):
        self.out, self.error = self.process.communicate(timeout=timeout)
        assert "Traceback" not in self.error
        return self.process.returncode


@dataclass
class Done:
    code: int
    out: str
    error: str


def _run(*words, cwd, **variables):
    """The same driver in this process: nothing is imported anew."""
    out, error = io.StringIO(), io.StringIO()
    fake = functools.partial(sweep.run, command=(sys.executable, str(ROOT / "tests" / "fake_training.py")))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        patch.chdir(cwd)
        patch.setattr(sweep, "run", fake)
        for key, value in ({"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables).items():
            patch.setenv(key, value)
        code = cli.main(list(words))
    return Done(code, out.getvalue(), error.getvalue())


def _jobs(folder):
    return json.loads((folder / "results.json").read_text())["jobs"]


def _started(folder):
    """Directory, new or again, and value of every process that was started."""
    return [tuple(line.split()) for line in (folder / "started.txt").read_text().splitlines()]


def _eventually(true, seconds=20):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A search of eight trials that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    driver = _run(*SEARCH, cwd=folder)
    assert driver.code == 0, driver.error
    return driver.out, folder / "runs" / "sweeps" / "plain"


def test_what_a_search_leaves(undisturbed):
    out, folder = undisturbed
    found = _jobs(folder)
    assert [job["number"] for job in found] == list(range(1, 9)) and {job["status"] for job in found} <= {"finished", "pruned"}
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/loss"]) for row in rows] == [job["value"] for job in found]
    best = min((job for job in found if job["status"] == "finished"), key=lambda job: job["value"])
    assert json.loads((folder / "results.json").read_text())["best"]["number"] == best["number"]
    assert f"best of {sum(job['status'] == 'finished' for job in found)} finished: #{best['number']}" in out
    assert f"dlzoo train {best['overrides'][0]}\n" in out and f"dlzoo evaluate {best['run_dir']}\n" in out
    assert "dlzoo sweep runs/sweeps/plain hparams_search.n_trials=16" in out
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert not list((folder / "workers").iterdir())


@pytest.mark.slow
def test_killed_in_the_fourth_trial_exactly_five_more_run_and_they_are_the_same(tmp_path, undisturbed):
    folder = tmp_path / "runs" / "sweeps" / "plain"
    driver = Driver(*SEARCH, cwd=tmp_path, FAKE_PAUSE="0.3")
    driver.until("#4 of 8  starts")
    _eventually(
        lambda: (
            (folder / "004" / "metrics.csv").is_file() and len((folder / "004" / "metrics.csv").read_text().splitlines()) > 1
        )
    )
    driver.process.kill()
    driver.process.communicate()
    # the trial that is left does not go on for ever: it saves and stops
    _eventually(lambda: json.loads((folder / "004" / "summary.json").read_text())["status"] == "interrupted")
    assert len(_started(folder)) == 4
    again = _run(*SEARCH, cwd=tmp_path)
    assert again.code == 0, again.error
    assert "8 trials, 3 done" in again.out
    more = _started(folder)[4:]
    assert len(more) == 5 and [entry[:2] for entry in more] == [
        ("004", "again"),
        *((f"00{number}", "new") for number in range(5, 9)),
    ]
    assert [job["overrides"] for job in _jobs(folder)] == [job["overrides"] for job in _jobs(undisturbed[1])]
    assert [job["value"] for job in _jobs(folder)] == [job["value"] for job in _jobs(undisturbed[1])]
    assert _run(*SEARCH, cwd=tmp_path).code == 0 and len(_started(folder)) == 9, "there is nothing left to do"


@pytest.mark.slow
def test_two_drivers_share_a_study(tmp_path):
    folder = tmp_path / "runs" / "sweeps" / "plain"
    drivers = [Driver(*SEARCH, cwd=tmp_path, FAKE_PAUSE="0.15") for _ in range(2)]
    assert [driver.end() for driver in drivers] == [0, 0], [driver.error for driver in drivers]
    started = _started(folder)
    assert sorted(entry[0] for entry in started) == [f"00{number}" for number in range(1, 9)]
    assert len({entry[2] for entry in started}) == 8, "none tries what another has tried"
    shares = [driver.out.count("  starts  ") for driver in drivers]
    assert sum(shares) == 8 and min(shares) >= 2, shares
    assert {job["status"] for job in _jobs(folder)} <= {"finished", "pruned"}


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_workers_of_one_driver(tmp_path, storage):
    driver = _run(*SEARCH, "--workers", "4", f"hparams_search.storage={storage}", cwd=tmp_path, FAKE_PAUSE="0.2")
    assert driver.code == 0, driver.error
    kinds = [line.split("  ")[1] for line in driver.out.splitlines() if line.startswith("#") and " of 8 " in line]
    assert kinds[:4] == ["starts"] * 4 and kinds.count("starts") == 8
    assert (tmp_path / "runs" / "sweeps" / "plain" / {"journal": "study.jsonl", "sqlite": "study.sqlite"}[storage]).is_file()


def test_one_failing_trial_is_shown_as_failed_and_the_others_go_on(tmp_path):
    words = ("sweep", "hparams_search=plain", RATE, "optimizer.momentum=choice(0.0,0.9,0.95)", "hparams_search.n_trials=8")
    driver = _run(*words, "hparams_search.pruner=none", cwd=tmp_path, FAKE_FAILS="optimizer.momentum=0.95")
    found = _jobs(tmp_path / "runs" / "sweeps" / "plain")
    failed = [job for job in found if job["status"] == "failed"]
    assert driver.code == 1 and len(found) == 8 and 0 < len(failed) < 8
    assert all("optimizer.momentum=0.95" in job["overrides"] and job["reason"] == "it was told to fail" for job in failed)
    assert all("optimizer.momentum=0.95" not in job["overrides"] for job in found if job["status"] == "finished")
    assert driver.error.startswith(f"error: {len(failed)} of 8 failed: #{failed[0]['number']} ")
    assert f"{failed[0]['number']:03d}.log" in driver.error and len(driver.error.splitlines()) <= 4


@pytest.mark.slow
def test_a_hopeless_trial_is_stopped(tmp_path):
    """The third is a thousand times worse than the median of two."""
    words = (
        "sweep",
        "hparams_search=plain",
        "hparams_search.sampler=random",
        "hparams_search.startup=1",
        "hparams_search.warmup=1",
    )
    space = "optimizer.lr=choice(0.1,1e-30)"
    driver = _run(*words, space, "hparams_search.n_trials=5", cwd=tmp_path, FAKE_EPOCHS="10", FAKE_PAUSE="0.1")
    assert driver.code == 0, driver.error
    found = _jobs(tmp_path / "runs" / "sweeps" / "plain")
    good = next(job["number"] for job in found if job["overrides"] == ["optimizer.lr=0.1"])
    late = [job for job in found if job["number"] > good and job["overrides"] != ["optimizer.lr=0.1"]]
    assert late and {job["status"] for job in late} == {"pruned"}
    for job in late:
        rows = (Path(tmp_path) / job["run_dir"] / "metrics.csv").read_text().splitlines()
        assert 2 <= len(rows) - 1 < 10
        assert json.loads((Path(tmp_path) / job["run_dir"] / "summary.json").read_text())["status"] == "interrupted"
    assert "pruned at validation" in driver.out


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_driver_that_is_asked_to_stop_stops_its_trial_which_is_no_failure(tmp_path, number):
    folder = tmp_path / "runs" / "sweeps" / "plain"
    words = ("sweep", "hparams_search=plain", RATE, "hparams_search.n_trials=3")
    driver = Driver(*words, cwd=tmp_path, FAKE_PAUSE="0.4")
    driver.until("#2 of 3  starts")
    _eventually(
        lambda: (
            (folder / "002" / "metrics.csv").is_file() and len((folder / "002" / "metrics.csv").read_text().splitlines()) > 1
        )
    )
    driver.process.send_signal(number)
    assert driver.end() == 128 + number
    assert [job["status"] for job in _jobs(folder)] == ["finished", "interrupted"]
    assert "dlzoo sweep runs/sweeps/plain\n" in driver.out and "error" not in driver.error
    again = _run("sweep", "runs/sweeps/plain", cwd=tmp_path)
    assert again.code == 0, again.error
    assert [entry[:2] for entry in _started(folder)] == [("001", "new"), ("002", "new"), ("002", "again"), ("003", "new")]
    assert [job["number"] for job in _jobs(folder)] == [1, 2, 3]


@pytest.mark.slow
def test_more_trials(undisturbed, tmp_path):
    words = ("sweep", "hparams_search=plain", RATE)
    assert _run(*words, "hparams_search.n_trials=2", cwd=tmp_path).code == 0
    assert _run("sweep", "runs/sweeps/plain", "hparams_search.n_trials=4", cwd=tmp_path).code == 0
    folder = tmp_path / "runs" / "sweeps" / "plain"
    assert [job["overrides"] for job in _jobs(folder)] == [job["overrides"] for job in _jobs(undisturbed[1])][:4]


# --- a grid


def test_a_grid_with_one_failing_job_goes_on_and_can_be_tried_again(tmp_path):
    driver = _run("train", "-m", "seed=1,2,3", "optimizer.lr=choice(0.1,0.2)", cwd=tmp_path, FAKE_FAILS="seed=2")
    assert driver.code == 1
    assert driver.error.startswith("error: 2 of 6 failed: #3 seed=2 optimizer.lr=0.1, #4 seed=2 optimizer.lr=0.2\n")
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    found = _jobs(folder)
    assert [job["status"] for job in found] == ["finished", "finished", "failed", "failed", "finished", "finished"]
    assert len({job["run_dir"] for job in found}) == 6 and found[5]["metrics"]["test/acc"] == 0.5
    rows = [line.split() for line in driver.out.splitlines() if " runs/sweeps/" in line and line[0].isdigit()]
    assert rows[0][:4] == ["1", "1", "0.1", f"{found[0]['value']:.4f}"] and rows[2][3::2] == ["failed", found[2]["run_dir"]]
    again = _run("sweep", str(folder.relative_to(tmp_path)), cwd=tmp_path)
    assert again.code == 0 and "6 jobs, 4 done" in again.out, again.error
    assert {job["status"] for job in _jobs(folder)} == {"finished"} and len(_started(folder)) == 8


@pytest.mark.slow
def test_a_grid_whose_driver_was_killed_goes_on(tmp_path):
    driver = Driver("sweep", "seed=range(1,5)", cwd=tmp_path, FAKE_PAUSE="0.3")
    driver.until("#2 of 4  starts")
    driver.process.kill()
    driver.process.communicate()
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    again = _run("sweep", str(folder), cwd=tmp_path)
    assert again.code == 0, again.error
    started = _started(folder)
    assert [entry[2] for entry in started if entry[0] == "001"] == ["1"]
    assert {entry[2] for entry in started} == {"1", "2", "3", "4"} and len(started) <= 5
    assert [job["status"] for job in _jobs(folder)] == ["finished"] * 4


# --- what is refused, before anything runs


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "-m", "seed=1,abc"], ["job 2 of 2", "seed", "nothing was run"]),
        (["train", "-m", "sed=1,2"], ["sed", "did you mean 'seed'"]),
        (["train", "-m", "run_dir=x", "seed=1,2"], ["run_dir", "runs_dir"]),
        (["train", "-m", "optimizer.lr=interval(0,1)"], ["optimizer.lr", "hparams_search=plain"]),
        (["train", "hparams_search=digits_optuna"], ["dlzoo sweep hparams_search=digits_optuna"]),
        (["sweep"], ["nothing to sweep"]),
        (["sweep", "nowhere"], ["nowhere is not the folder of a sweep"]),
        (["sweep", "hparams_search=digits_optna"], ["did you mean 'digits_optuna'"]),
        (["sweep", "hparams_search=plain"], ["nothing is searched for"]),
        (["sweep", "hparams_search=plain", "hparams_search.n_trial=3", RATE], ["did you mean 'hparams_search.n_trials'"]),
        (["sweep", "hparams_search=plain", "hparams_search.n_trials=0", RATE], ["n_trials is 0", "above 0"]),
        (["sweep", "hparams_search=plain", "optimizer.lr=interval(1,0)"], ["from less to more"]),
        (["sweep", "hparams_search=plain", "optimizer.lr=tag(log,interval(0,1))"], ["logarithm"]),
        (["sweep", "hparams_search=plain", "optimizer.lr=interval(-1,1)"], ["optimizer.lr is -1", "above 0"]),
        (["sweep", "hparams_search=plain", "optimizer.rate=interval(0,1)"], ["optimizer.rate"]),
        (["sweep", "hparams_search=plain", "model=choice(resnet20,resnt32)"], ["did you mean 'resnet32'"]),
        (["sweep", "hparams_search=plain", RATE, "optimized_metric=test/acc"], ["test split"]),
        (["sweep", "seed=1,2", "--workers", "0"], ["--workers"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_told_before_anything_runs(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and len(told.splitlines()) <= 6
    for word in expected:
        assert word in told
    assert not list(tmp_path.rglob("*.log"))


def test_another_search_of_the_same_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, plan = sweep.begin(["hparams_search=plain", RATE])
    assert sweep.begin(["hparams_search=plain", RATE, "hparams_search.n_trials=3"])[0] == folder
    assert sweep.Plan.read(folder).options["n_trials"] == 3
    for other in ("seed=1", "trainer.max_epochs=2", "optimizer.momentum=choice(0.0,0.9)"):
        with pytest.raises(ConfigError, match="another search"):
            sweep.begin(["hparams_search=plain", RATE, other])
    assert sweep.begin(["hparams_search=plain", RATE, "seed=1", "hparams_search.name=second"])[0].name == "second"
    with pytest.raises(ConfigError, match="can not change"):
        sweep.go_on(folder, ["optimizer.lr=0.1"])
    assert plan.metric == "val/loss" and plan.mode == "min"


def test_without_optuna(monkeypatch, capsys):
    real = sweep.importlib.util.find_spec
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None if name == "optuna" else real(name))
    assert cli.main(["sweep", "hparams_search=digits_optuna"]) == 2
    assert 'pip install "dlzoo[sweep]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "space"),
    [
        ("a=interval(0.1,2)", {"low": 0.1, "high": 2.0, "log": False}),
        ("a=tag(log,interval(1e-3,1))", {"low": 0.001, "high": 1.0, "log": True}),
        ("a=int(interval(1,9))", {"low": 1, "high": 9, "log": False}),
        ("a=tag(int,log,interval(1,100))", {"low": 1, "high": 100, "log": True}),
        ("a=range(2,10,3)", {"low": 2, "high": 8, "step": 3}),
        ("a=range(0.5,2,0.5)", {"choices": ["0.5", "1.0", "1.5"]}),
        ("a=choice(x,[1,2],true)", {"choices": ["x", "[1,2]", "True"]}),
        ("a=1,2", {"choices": ["1", "2"]}),
        ("model=glob(resnet20*)", {"choices": ["resnet20"]}),
    ],
)
def test_spaces(word, space):
    from dlzoo.study import distribution

    (parsed,) = sweep._parse([word], None)
    found = sweep._space(parsed)
    assert found == space and {type(value) for value in found.values()} == {type(value) for value in space.values()}
    given = distribution(found)
    assert given.to_internal_repr(space["choices"][-1] if "choices" in space else space["high"]) is not None


@pytest.mark.parametrize("name", ["digits_optuna", "cifar10_optuna"])
def test_the_searches_of_the_tree_begin(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, plan = sweep.begin([f"hparams_search={name}", "trainer=cpu"])
    assert folder == Path("runs/sweeps") / name and len(plan.space) >= 3 and "test=false" in plan.overrides
    assert plan.overrides.count("trainer=cpu") == 1


def test_the_command_line_narrows_a_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["optimizer.lr=0.1", "optimizer.momentum=choice(0.8,0.9)", "trainer.max_epochs=2", "runs_dir=elsewhere"]
    folder, plan = sweep.begin(["hparams_search=digits_optuna", *words])
    assert folder == Path("elsewhere/sweeps/digits_optuna")
    assert "optimizer.lr" not in plan.space and plan.space["optimizer.momentum"] == {"choices": ["0.8", "0.9"]}
    assert "optimizer.lr=0.1" in plan.overrides and "trainer.max_epochs=2" in plan.overrides
    assert "trainer.max_epochs=8" not in plan.overrides


# --- the pieces


def _finished(folder, *values):
    """What a run leaves that came to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("name: fake\n")
    (folder / "metrics.csv").write_text(
        "step,val/loss\n" + "".join(f"{step},{value}\n" for step, value in enumerate(values, 1))
    )
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "metrics": {"val/loss": values[-1]}}))


def _search(folder, total=3):
    from dlzoo.study import Search

    return Search(folder, "val/loss", "min", {"lr": {"low": 1e-3, "high": 1.0, "log": True}}, total, seed=0)


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_a_run_that_finished_after_its_driver_was_gone_counts(tmp_path, kind):
    source = _search(tmp_path) if kind == "search" else Grid(tmp_path, "val/loss", "min")
    if kind == "grid":
        source.create([["lr=0.1"], ["lr=0.2"]])
    first = source.claim("host-0")  # no such driver is alive
    _finished(Path(first.run_dir), 0.5, 0.25, 0.75)
    second = source.claim("host-0")
    assert (first.number, second.number) == (1, 2)
    kept = source.records()[0]
    assert (kept.status, kept.value, kept.metrics) == ("finished", 0.25, {"val/loss": 0.75}), "the best of its validations"
    third = source.claim("host-0")
    assert third.number == 2 and third.overrides == second.overrides, "its driver is gone, and nothing came of it"


def test_the_number_of_trials_counts_what_runs_elsewhere(tmp_path):
    one, other = _search(tmp_path), _search(tmp_path)
    with Worker(tmp_path) as worker:
        found = [source.claim(worker.name) for source in (one, other, one, other)]
    assert [record and record.number for record in found] == [1, 2, 3, None]
    assert len({record.overrides[0] for record in found[:3]}) == 3


def test_a_run_without_the_metric_is_a_failed_trial(tmp_path):
    source = _search(tmp_path)
    record = source.claim("host-0")
    record.status = "finished"
    source.finish(record)
    assert [(found.status, found.reason) for found in source.records()] == [("failed", "val/loss was never measured")]


def test_a_driver_on_another_machine_is_held_to_be_gone_when_it_is_silent(tmp_path):
    (tmp_path / "workers").mkdir()
    sign = tmp_path / "workers" / "another-machine-17"
    sign.touch()
    assert driver.alive(tmp_path, sign.name)
    os.utime(sign, (time.time() - 1000,) * 2)
    assert not driver.alive(tmp_path, sign.name) and not driver.alive(tmp_path, "") and not driver.alive(tmp_path, "a-1")
    with Worker(tmp_path) as worker:
        assert driver.alive(tmp_path, worker.name) and driver.others(tmp_path, worker.name) == []
        (tmp_path / "workers" / worker.name).touch()
    assert not driver.alive(tmp_path, worker.name)


def test_a_job_that_will_not_stop_is_ended(tmp_path):
    (tmp_path / "run").mkdir()
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    job = Job([], tmp_path / "run", tmp_path / "log", command=(sys.executable, "-c", deaf))
    _eventually(lambda: "ready" in (tmp_path / "log").read_text())
    job.stop(grace=0.3)
    assert job.poll() is None
    _eventually(lambda: job.poll() is not None)
    assert job.poll() == -signal.SIGKILL and job.reason() == "signal SIGKILL"


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("step,val/loss\n1,0.5\n2,\n3,0.25\n", [0.5, 0.25]),
        ("step,val/loss\n1,0.5\n2,0.2", []),
        ("", []),
        ("step,acc\n1,0.5\n", []),
    ],
)
def test_a_row_that_is_being_written_is_not_read(tmp_path, table, values):
    assert jobs.measured(tmp_path, "val/loss") == []
    (tmp_path / "metrics.csv").write_text(table)
    assert jobs.measured(tmp_path, "val/loss") == values


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("optimizer.lr=0.017826497151386938", "optimizer.lr=0.01783"),
        ("a=1.8924123965722247e-05", "a=1.892e-05"),
        ("optimizer.lr=0.1", "optimizer.lr=0.1"),
        ("seed=123456789", "seed=123456789"),
        ("name=v1.234567x", "name=v1.234567x"),
    ],
)
def test_a_number_is_short_on_the_screen(word, shown):
    assert driver.short(word) == shown


@pytest.mark.parametrize(
    "value", ["runs/a b/001", "it's", "a=b,c", "plain-1.5/x_y", "back\\slash 'and' quote", "both \\'", "end \\"]
)
def test_quoted(value):
    (parsed,) = sweep._parse([f"run_dir={jobs.quoted(value)}"], None)
    assert parsed.value() == value


# --- real trainings

TINY = ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "test=false")
REAL = "import sys; from dlzoo import cli; sys.exit(cli.main(sys.argv[1:]))"


@pytest.mark.slow
def test_a_real_search_killed_after_three_of_eight(tmp_path):
    words = (*SEARCH, *TINY, "hparams_search.pruner=none")
    folder = tmp_path / "runs" / "sweeps" / "plain"
    driver = Driver(*words, cwd=tmp_path, door=REAL)
    driver.until("#3 of 8  val/loss")
    driver.until("#4 of 8  starts")
    driver.process.kill()
    driver.process.communicate()
    again = Driver(*words, cwd=tmp_path, door=REAL)
    assert again.end(timeout=400) == 0, again.error
    assert "8 trials, 3 done" in again.out
    starts = [line.split()[0] for line in again.out.splitlines() if "  starts  " in line or "  goes on  " in line]
    assert starts == ["#4", "#5", "#6", "#7", "#8"]
    found = _jobs(folder)
    assert len(found) == 8 and {job["status"] for job in found} == {"finished"}
    for job in found:
        summary = json.loads((tmp_path / job["run_dir"] / "summary.json").read_text())
        assert summary["status"] == "finished" and summary["metrics"]["val/loss"] == job["value"]
        assert f"run_dir={job['run_dir']}" in (tmp_path / job["run_dir"] / "overrides.yaml").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_a_real_trial_without_hope_is_stopped_and_one_that_breaks_is_failed(tmp_path):
    words = ("sweep", "hparams_search=plain", "hparams_search.sampler=random", "hparams_search.startup=1", "--workers", "2")
    space = ("optimizer.lr=choice(0.05,1e-9,1e30)", "hparams_search.n_trials=7", "seed=3")
    long = ("trainer=cpu", "trainer.max_epochs=40", "trainer.limit_train_batches=10", "test=false")
    driver = Driver(*words, *space, *long, cwd=tmp_path, door=REAL)
    assert driver.end(timeout=500) == 1
    kinds = {}
    for job in _jobs(tmp_path / "runs" / "sweeps" / "plain"):
        kinds.setdefault(job["overrides"][0].partition("=")[2], set()).add(job["status"])
    assert kinds["0.05"] == {"finished"} and "pruned" in kinds["1e-09"] and kinds["1e+30"] == {"failed"}
    assert "failed: " in driver.out and "nan" in driver.out


@pytest.mark.slow
def test_a_grid_of_trainings_on_two_processes_each(tmp_path):
    """Lightning starts the second process with the first one's command line, which is a run's and not the sweep's."""
    words = ("train", "-m", "seed=1,2", *TINY, "trainer=ddp_cpu")
    driver = Driver(*[word for word in words if word != "trainer=cpu"], cwd=tmp_path, door=REAL)
    assert driver.end(timeout=400) == 0, driver.error
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    found = _jobs(folder)
    assert [job["status"] for job in found] == ["finished", "finished"]
    for number, job in enumerate(found, 1):
        summary = json.loads((tmp_path / job["run_dir"] / "summary.json").read_text())
        assert summary["devices"] == 2 and summary["seed"] == number
    assert found[0]["value"] != found[1]["value"] and len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.slow
def test_wandb_is_told_of_a_run_that_failed(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    from dlzoo.callbacks import loggers

    ends = []
    for status in ("success", "failed"):
        logger = loggers.wandb(str(tmp_path), "dlzoo", status, [])
        real = logger.experiment.finish
        monkeypatch.setattr(
            logger.experiment, "finish", lambda exit_code=None, real=real: (ends.append(exit_code), real(exit_code))
        )
        logger.finalize(status)
        real()
    assert ends == [1]


# --- a grid with a name, and the spread over seeds


def test_a_grid_with_a_name_is_every_point_of_its_file(tmp_path):
    words = ["hparams_search=hymenoptera_transfer", "seed=0,1", "init_from=runs/some", f"runs_dir={tmp_path}"]
    folder, plan = sweep.begin(words)
    jobs_of = [record.overrides for record in Grid(folder, plan.metric, plan.mode).records()]
    modes = [f"callbacks.transfer.mode={mode}" for mode in ("scratch", "frozen", "finetune")]
    assert jobs_of == [[mode, f"seed={seed}"] for mode in modes for seed in (0, 1)], "the command line's seeds, not the file's"
    assert plan.overrides == ["experiment=hymenoptera_transfer", "init_from=runs/some", f"runs_dir={tmp_path}"]
    assert (plan.metric, plan.mode) == ("val/loss", "min")


def test_a_grid_with_a_name_needs_no_optuna(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_require_optuna", lambda: pytest.fail("it asked for Optuna"))
    sweep.begin(["hparams_search=hymenoptera_transfer", "seed=0", f"runs_dir={tmp_path}"])


def _record(number, *overrides, value=0.5, status="finished", **metrics):
    return driver.Record(number, list(overrides), status, value, {name.replace("_", "/"): v for name, v in metrics.items()})


def test_the_table_says_what_comes_out_over_the_seeds():
    records = [
        _record(1, "a.mode=scratch", "seed=0", value=0.6, test_acc=0.50),
        _record(2, "a.mode=scratch", "seed=1", value=0.8, test_acc=0.60),
        _record(3, "a.mode=frozen", "seed=0", value=0.9, test_acc=0.70),
        _record(4, "a.mode=frozen", "seed=1", value=None, status="failed"),
    ]
    lines = tally.text(Path("folder"), records, "val/acc", "max", [], searched=False).splitlines()
    start = lines.index("over the seeds, mean +- standard deviation:")
    assert lines[start + 1].split() == ["mode", "val/acc", "test/acc", "seeds"]
    assert lines[start + 2].split() == ["scratch", "0.7000", "+-", "0.1414", "0.5500", "+-", "0.0707", "2"]
    assert lines[start + 3].split() == ["frozen", "0.9000", "+-", "0.0000", "0.7000", "+-", "0.0000", "1"]


@pytest.mark.parametrize("keys", [("seed=0", "seed=1"), ("lr=1", "lr=2")])
def test_without_seeds_or_with_nothing_but_them_there_is_no_such_table(keys):
    records = [_record(number, key) for number, key in enumerate(keys, 1)]
    assert "over the seeds" not in tally.text(Path("folder"), records, "val/acc", "max", [], searched=False)
