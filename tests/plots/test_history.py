"""metrics.csv read back: every number at its own step, gaps left out."""

from dlzoo.plots.history import read_metrics


def test_each_metric_keeps_its_own_steps(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,epoch,seconds,train/loss,lr,val/loss\n10,0,0.5,2.5,0.1,\n19,0,0.9,,,2.25\n20,1,1.0,1.5,0.09,\n", encoding="utf-8"
    )
    assert read_metrics(path) == {
        "train/loss": ([10.0, 20.0], [2.5, 1.5]),
        "lr": ([10.0, 20.0], [0.1, 0.09]),
        "val/loss": ([19.0], [2.25]),
    }


def test_values_that_are_not_finite_stay(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n10,nan\n20,inf\n", encoding="utf-8")
    steps, values = read_metrics(path)["train/loss"]
    assert steps == [10.0, 20.0]
    assert values[0] != values[0] and values[1] == float("inf")


def test_a_run_without_numbers_has_no_history(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == {}
    (tmp_path / "metrics.csv").write_text("", encoding="utf-8")
    assert read_metrics(tmp_path / "metrics.csv") == {}
