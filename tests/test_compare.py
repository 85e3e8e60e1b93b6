"""`dlzoo compare`: runs named by what differs in them, with their last values and how far they are apart."""

import json

import pytest
import yaml

from dlzoo import cli
from dlzoo.compare import compare
from dlzoo.errors import ConfigError, StorageError


def run(folder, *typed, **metrics):
    """A directory as a run leaves it: metric -> step -> value."""
    folder.mkdir(parents=True)
    metrics = {name.replace("_", "/"): values for name, values in metrics.items()}
    steps = sorted({step for values in metrics.values() for step in values})
    rows = [[str(step), "0", "1.0", *(str(values.get(step, "")) for values in metrics.values())] for step in steps]
    lines = [",".join(["step", "epoch", "seconds", *metrics]), *map(",".join, rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("name: digits\n")
    (folder / "overrides.yaml").write_text(yaml.safe_dump([*typed, f"run_dir={folder}", "data_dir=/x"]))
    return folder


@pytest.fixture
def two(tmp_path):
    slow = run(tmp_path / "a", "experiment=digits", "optimizer.lr=0.1", train_loss={1: 3.0, 2: 2.0}, val_loss={2: 2.5, 4: 1.5})
    fast = run(
        tmp_path / "b",
        *("experiment=digits", "optimizer.lr=0.3", "seed=1"),
        train_loss={1: 3.25, 2: 1.0},
        val_loss={2: 2.0, 6: 1.0},
        val_acc={6: 0.5},
    )
    return slow, fast


def test_runs_beside_each_other(two, tmp_path):
    found = compare(two, out=tmp_path / "picture.png")
    assert found.names == ["optimizer.lr=0.1", "optimizer.lr=0.3 seed=1"]
    assert found.metrics == ["train/loss", "val/loss", "val/acc"]
    assert found.last == {"train/loss": [2.0, 1.0], "val/loss": [1.5, 1.0], "val/acc": [None, 0.5]}
    assert found.apart == {"train/loss": (1.0, 2), "val/loss": (0.5, 2), "val/acc": None}  # 4 and 6 are steps of one alone
    assert found.picture.stat().st_size > 5_000


def test_the_command(two, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *map(str, two), "--metric", "val/loss"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{two[0]}  optimizer.lr=0.1  val/loss 1.5000",
        f"{two[1]}  optimizer.lr=0.3 seed=1  val/loss 1.0000",
        "val/loss: at most 0.5 apart, at step 2",
        "compare.png",
    ]
    assert cli.main(["compare", *map(str, two), "--json", "--out", "other.svg"]) == 0
    assert json.loads(capsys.readouterr().out)["apart"]["val/loss"] == [0.5, 2]
    assert (tmp_path / "compare.png").is_file() and (tmp_path / "other.svg").read_text().startswith("<?xml")


def test_a_run_that_diverged_is_compared_as_far_as_it_went(two, tmp_path):
    lost = run(tmp_path / "c", "seed=2", val_loss={2: 2.75, 4: float("nan")})
    assert compare([two[0], lost], out=tmp_path / "picture.png").apart["val/loss"] == (0.25, 2)


def test_runs_that_differ_in_nothing_are_called_by_their_places(tmp_path):
    same = [run(tmp_path / name, "experiment=digits", val_loss={1: 1.0}) for name in "ab"]
    assert compare(same, out=tmp_path / "picture.png").names == [str(folder) for folder in same]


def test_mistakes_are_told(two, tmp_path):
    with pytest.raises(ConfigError, match="two runs or more, each once"):
        compare([two[0], two[0]])
    with pytest.raises(ConfigError, match="two runs or more"):
        compare(two[:1])
    with pytest.raises(ConfigError, match=r"no run has 'val/los'") as told:
        compare(two, ["val/los"])
    assert "val/loss" in str(told.value)
    with pytest.raises(ConfigError, match="is not the directory of a run"):
        compare([two[0], tmp_path])
    with pytest.raises(ConfigError, match="nothing yet"):
        compare([run(tmp_path / name) for name in "cd"])
    with pytest.raises(StorageError, match="can not be written"):
        compare(two, out=two[0])  # a folder
    assert not list(tmp_path.glob("*.png"))
