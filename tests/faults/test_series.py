"""Row 1 on a series with missing values: windows in a new order each epoch, dropout; killed, stopped, and gone on with."""

import signal

import kill_test
import numpy as np
import pytest

WORDS = (
    *("train", "data=series_file", "model=forecaster_lstm", "task=forecasting", "trainer=cpu", "seed=5", "task.loss=mae"),
    *("data.history=20", "data.horizon=3", "data.batch_size=16", "data.masks=[value]", "data.yearly=1", "data.deviations=true"),
    *("model.width=8", "model.dropout=0.2", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "data.ar=2"),
    *("trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=2"),
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A year of days, a tenth of them missing."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    days = np.datetime64("2020-01-01") + np.arange(366)
    values = ["NA" if random.random() < 0.1 else f"{5 + random.normal():.3f}" for _ in days]
    (folder / "a.csv").write_text(
        "\n".join(["date,value", *(f"{day},{value}" for day, value in zip(days, values, strict=True))])
    )
    return (*WORDS, f"data.path={folder}/a.csv")


@pytest.mark.slow
def test_a_run_on_a_series_ends_as_if_nothing_had_happened(server, words, tmp_path):
    code, job = server.run(*words, f"run_dir={tmp_path}/straight")
    assert code == 0, job.errors
    code, job = server.run(*words, f"run_dir={tmp_path}/run", DLZOO_FAULT="kill9@step=3")
    assert code == -signal.SIGKILL, job.errors
    code, job = server.run("resume", tmp_path / "run", DLZOO_FAULT="sigterm@step=5")
    assert code == 143, job.errors
    code, job = server.run("resume", tmp_path / "run")
    assert code == 0, job.errors
    straight, run = (kill_test.fingerprint(tmp_path / name) for name in ("straight", "run"))
    assert straight and straight == run
    assert {name for name in straight if "mae" in name}
