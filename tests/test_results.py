"""scripts/results.py: every figure of RESULTS.md comes from a run, its command makes that run, and no path leaks."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from dlzoo.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    "time": "2026-11-22T08:00:00+00:00",
    "command": "train.py run_dir=/home/somebody/runs/a",
    "python": "3.11.7",
    "platform": "Linux",
    "processor": "Intel(R) Xeon(R) Processor @ 2.1 GHz",
    "cores": 2,
    "torch_threads": 1,
    "gpus": [],
    "packages": {"torch": "2.15.0", "lightning": "2.6.6"},
    "commit": "0123456789ab+",
}


@pytest.fixture(scope="module")
def results():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import results

        return results
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture
def finished(tmp_path):
    """A run's directory as train.py leaves it: finished(seed=1, accuracy=0.98, overrides=[...]) -> its path."""

    def make(*overrides, seed=0, accuracy=0.98, edition="", **summary):
        from dlzoo.config import check, compose

        path = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        path.mkdir()
        given = [*overrides, f"seed={seed}", f"run_dir={path}", f"data_dir={tmp_path}"]
        config = check(compose(*given))
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        (path / "overrides.yaml").write_text(yaml.safe_dump(given))
        (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
        content = {
            "name": config["name"],
            "status": "finished",
            "model": "resnet20",
            "parameters": 269434,
            "edition": edition,
            "seed": seed,
            "batch_size": config["data"]["batch_size"],
            "precision": "bf16-mixed" if config["trainer"]["precision"] == "bf16-mixed" else "32-true",
            "devices": 1,
            "metrics": {"test/acc": accuracy, "test/loss": 0.1, "val/acc": 1.0, "train/loss": 0.3},
            "epochs": config["trainer"]["max_epochs"],
            "training_seconds": 90.0,
            "total_seconds": 150.0,
            "samples_per_second": 1000.0,
        }
        (path / "summary.json").write_text(json.dumps(content | summary))
        return path

    return make


def test_a_row_is_the_mean_of_its_seeds(results, finished, tmp_path):
    folder = tmp_path / "results"
    for seed, accuracy in enumerate((0.97, 0.98, 0.99)):
        assert results.add(finished(seed=seed, accuracy=accuracy), folder) == "results/runs.jsonl"
    text = results.render(folder)
    cells = next(line for line in text.splitlines() if line.startswith("| `python train.py`")).split(" | ")
    assert cells[1:5] == ["resnet20, epochs: 20", "3", "98.00 +- 1.00 % accuracy", "-"]  # of 97, 98, 99
    assert cells[5:8] == ["90 s", "2.5 min", "1,000"]
    assert cells[8] == "Intel Xeon, 1 of 2 cores, fp32"
    assert cells[9:] == ["2.15.0", "01234567+", "original |"]


def test_the_result_of_a_segmentation_is_its_miou(results, finished, tmp_path):
    for seed, miou in enumerate((0.41, 0.43)):
        metrics = {"test/miou": miou, "test/acc": 0.9, "test/loss": 0.1}
        results.add(finished("experiment=camvid_deeplab", seed=seed, metrics=metrics), tmp_path / "results")
    row = next(line for line in results.render(tmp_path / "results").splitlines() if "camvid_deeplab" in line)
    assert row.split(" | ")[3] == "42.00 +- 1.41 % mIoU"


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (
            [{"val/loss": 1.8, "test/loss": loss, "test/ppl": ppl, "test/bpc": 2.0} for loss, ppl in ((1.9, 6.7), (1.8, 6.1))],
            "loss 1.8500 +- 0.0707, ppl 6.400 +- 0.424, bpc 2.000 +- 0.000",
        ),
        ([{"test/loss": 1.2, "test/bleu": 28.31, "test/chrf": 52.5}], "28.31 BLEU, 52.50 chrF"),
        (
            [{"test/mae_persistence": 2.63, "test/mae": 1.71, "test/rmse": 2.2, "test/mase": 0.8, "test/loss": 0.3}],
            "mae 1.710, rmse 2.200, mase 0.800, mae of persistence 2.630",
        ),
        ([{"test/mae": 1.71, "test/loss": 0.3}], "mae 1.710"),
        ([{"val/acc": 0.5}, {"val/acc": 0.7}], "60.00 +- 14.14 % accuracy (val)"),
        ([{"test/acc": 0.5}, {"val/loss": 0.7}], "none"),  # of two seeds only what both have
        ([{"val/loss": 0.7}], "loss 0.7000 (val)"),
    ],
    ids=["language", "translation", "forecasting", "mae alone", "no test", "nothing shared", "loss alone"],
)
def test_a_result_has_the_name_of_what_it_is(results, metrics, expected):
    assert results.result([{"metrics": values} for values in metrics]) == expected


def test_other_overrides_and_editions_are_other_rows_and_the_paper_stands_beside(results, finished, tmp_path):
    folder, short = tmp_path / "results", ("experiment=cifar10_resnet", "trainer=cpu_fast", "trainer.max_epochs=2")
    for path in (
        finished(*short, edition="JPEG edition", accuracy=0.4),
        finished(*short, accuracy=0.5),
        finished("experiment=cifar10_resnet", accuracy=0.91),
    ):
        results.add(path, folder)
    rows = [line for line in results.render(folder).splitlines() if line.startswith("| `python train.py")]
    assert len(rows) == 3
    assert all("91.25 % test accuracy" in row for row in rows)  # what the head of the experiment's file says of the paper
    assert sum("`python train.py experiment=cifar10_resnet trainer=cpu_fast trainer.max_epochs=2`" in row for row in rows) == 2
    assert sum(row.endswith("[1] |") for row in rows) == 1
    assert "[1] JPEG edition." in results.render(folder)


def test_no_path_of_the_machine_is_kept(results, finished, tmp_path):
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    run = finished("experiment=imagefolder_resnet50", f"data.root={tmp_path}/pictures")
    results.add(run, tmp_path / "results")
    kept = (tmp_path / "results" / "runs.jsonl").read_text() + results.render(tmp_path / "results")
    assert str(tmp_path) not in kept and "/home" not in kept
    assert "data.root=pictures" in kept


def test_the_same_run_is_taken_once_and_a_seed_run_again_replaces_the_first(results, finished, tmp_path):
    folder, run = tmp_path / "results", finished(accuracy=0.5)
    results.add(run, folder)
    assert results.add(run, folder) == "is there already"
    results.add(finished(accuracy=0.75), folder)
    assert [
        [record["metrics"]["test/acc"] for record in group] for group in results.groups(results.read(folder / "runs.jsonl"))
    ] == [[0.75]]


def test_a_run_whose_command_makes_another_config_is_refused(results, finished, tmp_path):
    """Somebody changed the experiment since, or the config in Python: the row would promise what no command gives."""
    run = finished()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["optimizer"]["lr"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"optimizer.lr is 0.1 there and 0.5 in the run"):
        results.add(run, tmp_path / "results")


@pytest.mark.parametrize(
    ("change", "message"), [({"status": "failed"}, "is failed"), ({"status": "interrupted"}, "is interrupted")]
)
def test_only_finished_runs_count(results, finished, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        results.add(finished(**change), tmp_path / "results")


def test_a_plain_loop_stands_beside_the_run_of_its_settings(results, finished, tmp_path):
    folder = tmp_path / "results"
    record = {
        "test_acc_best": 0.51,
        "training_seconds": 100.0,
        "samples_per_second": 900.0,
        "settings": {
            "epochs": 2,
            "seed": 0,
            "threads": 1,
            "lr": 0.1,
            "weight_decay": 1e-4,
            "schedule": "multistep",
            "precision": "bf16",
        },
        "edition": "",
        "machine": ENVIRONMENT,
    }
    (tmp_path / "plain.json").write_text(json.dumps(record))
    assert results.add(tmp_path / "plain.json", folder) == "results/plain.jsonl"
    results.add(finished("experiment=cifar10_resnet", "trainer=cpu_fast", "trainer.max_epochs=2", accuracy=0.5), folder)
    results.add(finished("experiment=cifar10_resnet", "trainer=cpu_fast", "trainer.max_epochs=3", accuracy=0.6), folder)
    section = results.render(folder).split("## Beside a plain loop")[1].split("##")[0]
    assert "| plain loop | 1 | 51.00 % accuracy | 100 s | 900 |" in section
    assert "| dlzoo | 1 | 50.00 % accuracy | 90 s | 1,000 |" in section
    assert "max_epochs=3" not in section


def test_the_benchmarks_rows_and_machine(results, tmp_path):
    row = {
        "goal": "G4",
        "what": "a step",
        "ours": 2.0,
        "peer": 1.0,
        "unit": "steps/s",
        "value": 2.0,
        "bound": ">= 2.5",
        "met": False,
    }
    (tmp_path / "bench.json").write_text(json.dumps({"repeats": 5, "rows": [row], "machine": ENVIRONMENT}))
    results.add(tmp_path / "bench.json", tmp_path / "results")
    text = results.render(tmp_path / "results")
    assert "| a step | 2 | 1 | steps/s | 2 | >= 2.5 | missed |" in text
    assert "median of 5" in text and "/home" not in (tmp_path / "results" / "bench.json").read_text()


def test_other_files_are_refused(results, tmp_path):
    (tmp_path / "else.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"neither plain_loop.py nor bench.py"):
        results.add(tmp_path / "else.json", tmp_path / "results")


def test_nothing_measured_is_said(results, tmp_path):
    text = results.render(tmp_path)
    assert "No run has been taken up yet." in text and "| --- |" not in text


def test_results_md_is_up_to_date(results):
    """`python scripts/results.py render` was forgotten where this fails."""
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == results.render(ROOT / "results")


def test_check_says_so_by_its_exit_code(results, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    assert results.main(["render", "--check"]) == 1
    assert results.main(["render"]) == 0 and results.main(["render", "--check"]) == 0
    (tmp_path / "RESULTS.md").write_text("typed by hand")
    assert results.main(["render", "--check"]) == 1
