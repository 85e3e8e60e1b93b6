"""Row 1 on recordings: moved, made louder, stripes of their spectrograms blotted out; killed, stopped, and gone on with."""

import signal

import kill_test
import pytest
import soundfile
import torch

WORDS = (
    *("train", "experiment=spoken_digits_melresnet", "model=melresnet8_narrow", "trainer=cpu", "seed=5", "data.samples=2000"),
    *("trainer.max_epochs=2", "data.batch_size=16", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1"),
    *("trainer.limit_test_batches=1", "trainer.log_every_n_steps=1", "callbacks.checkpoint.every_n_steps=2"),
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """As many recordings as the data set has, each a quarter of a second of noise."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "free_spoken_digits").mkdir()
    noise = torch.randn(3_000, 2_000, generator=torch.Generator().manual_seed(0)).mul(0.1).numpy()
    names = (f"{digit}_{speaker}_{take}.wav" for digit in range(10) for speaker in "abcdef" for take in range(50))
    for name, wave in zip(names, noise, strict=True):
        soundfile.write(folder / "free_spoken_digits" / name, wave, 8_000)
    return (*WORDS, f"data_dir={folder}")


@pytest.mark.slow
def test_a_run_on_recordings_ends_as_if_nothing_had_happened(server, words, tmp_path):
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
