"""`dlzoo tune lr`: a range test of the experiment as it is, and words where it says nothing."""

import csv
import json
from itertools import pairwise

import pytest

from dlzoo import cli as program
from dlzoo import tune
from dlzoo.errors import ConfigError, NumericalError


def _rows(picture):
    with open(picture.replace(".png", ".csv"), newline="", encoding="utf-8") as file:
        return [(float(row["lr"]), float(row["loss"])) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, tune.learning_rate([f"runs_dir={folder}", "model=mlp", "trainer=cpu"], steps=80)


def test_it_suggests_a_rate_that_trains(found, tmp_path):
    import dlzoo

    _, suggestion = found
    assert suggestion.rate == pytest.approx(suggestion.smallest / 2, rel=0.05) and 1e-4 < suggestion.rate < 1
    words = [f"runs_dir={tmp_path}", "model=mlp", "trainer=cpu", f"optimizer.lr={suggestion.rate}", "trainer.max_epochs=5"]
    assert dlzoo.train(dlzoo.compose(*words), words).metrics["test/acc"] > 0.85


def test_it_leaves_a_picture_and_its_numbers_and_nothing_else(found):
    folder, suggestion = found
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert [file.rsplit("/", 1)[-1] for file in files] == ["lr_finder.csv", "lr_finder.png"]
    assert all(file.startswith("digits_mlp/tune_lr_") for file in files)
    rates = [rate for rate, _ in _rows(suggestion.picture)]
    assert rates[0] == pytest.approx(1e-6) and len(rates) == suggestion.steps <= 80
    factors = [b / a for a, b in pairwise(rates)]
    assert factors == pytest.approx([1e7 ** (1 / 80)] * len(factors)), "the same factor at each step"


def test_it_ends_when_the_loss_runs_away(found):
    losses = [loss for _, loss in _rows(found[1].picture)]
    assert len(losses) < 80 and losses[-1] > 2 * losses[0]


def test_the_losses_are_those_of_the_experiment(tmp_path):
    """At rates of next to nothing they are what a run writes into its table: same batches, augmentation, accumulation."""
    import dlzoo

    words = ["model=mlp", "trainer=cpu", "data.batch_size=32", "trainer.accumulate_grad_batches=2", "task.mixup=0.4"]
    with pytest.raises(NumericalError, match=r"hardly moved|still falling"):  # 20 losses say little
        tune.learning_rate([*words, f"runs_dir={tmp_path}"], low=1e-12, high=1e-10, steps=20)
    losses = [loss for _, loss in _rows(str(next(tmp_path.rglob("lr_finder.png"))))]
    words += [f"run_dir={tmp_path}/run", "optimizer.lr=1e-12", "scheduler=constant", "trainer.max_steps=20", "test=false"]
    run = dlzoo.train(dlzoo.compose(*words, "trainer.log_every_n_steps=1", "trainer.limit_val_batches=0"), words)
    with open(run.dir / "metrics.csv", newline="", encoding="utf-8") as file:
        table = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 20 and losses == pytest.approx(table, rel=1e-5)


@pytest.mark.parametrize(
    "low, high, words, said",
    [
        (1e-12, 1e-9, "hardly moved", "--to 1e-08"),
        (1e4, 1e9, "(never fell|not finite)", "--from 10 --to 100000"),
    ],
)
def test_a_curve_that_says_nothing_is_told(low, high, words, said, tmp_path):
    with pytest.raises(NumericalError, match=words) as caught:
        tune.learning_rate([f"runs_dir={tmp_path}", "model=mlp", "trainer=cpu"], low=low, high=high, steps=40)
    assert said in caught.value.fix and caught.value.exit_code == 4
    assert next(tmp_path.rglob("lr_finder.png")).is_file(), "the picture shows it"


def test_sam_is_part_of_what_is_tested(tmp_path, monkeypatch):
    from dlzoo.callbacks.sam import SAM

    seen = []
    before = SAM.on_before_optimizer_step
    monkeypatch.setattr(SAM, "on_before_optimizer_step", lambda self, *rest: seen.append(self) or before(self, *rest))
    tune.learning_rate([f"runs_dir={tmp_path}", "model=mlp", "trainer=cpu", "optimizer=sam", "callbacks=ema"], steps=40)
    assert 20 < len(seen) <= 40


@pytest.mark.parametrize("low, high, steps, key", [(0, 1, 50, "--from"), (1, 0.1, 50, "--from"), (1e-6, 1, 5, "--steps")])
def test_a_range_that_is_none_is_refused(low, high, steps, key):
    with pytest.raises(ConfigError) as caught:
        tune.learning_rate([], low, high, steps)
    assert key in caught.value.where


def test_the_command_line(cli, tmp_path, capsys):
    done = cli("tune", "lr", f"run_dir={tmp_path}/here", "model=mlp", "trainer=cpu", "--steps", "60", "optimizer.lr=3")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "lr_finder.png").is_file()
    assert "no config was changed" in done.stdout and "Traceback" not in done.stderr
    command = done.stdout.strip().splitlines()[-1].split()
    assert command[-1].startswith("optimizer.lr=0.0") and "optimizer.lr=3" not in command and "model=mlp" in command
    assert program.main(["tune", "lr", f"runs_dir={tmp_path}", "model=mlp", "trainer=cpu", "--steps", "60", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rate"] > 0
    done = cli("tune", "lrr")
    assert done.returncode == 2 and "lr" in done.stderr
