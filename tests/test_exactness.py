"""Each sentence of docs/reliability.md on what is exact where, beyond the fp32 runs on one CPU that tests/faults disturbs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dlzoo
from dlzoo import checkpoints, config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import kill_test  # noqa: E402

DROPOUT = ("model=mlp", "model.dropout=0.2")
SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.log_every_n_steps=1")
SAVING = ("callbacks.checkpoint.every_n_steps=4", "data.eval_batch_size=60")
# a translator: batches of unequal size, dropout, bf16
PAIRS = ("experiment=multi30k_transformer", "data.source_vocab_size=1000", "data.target_vocab_size=1000", "task.max_length=20")
PAIRS += ("data.batch_tokens=512", "trainer.limit_val_batches=1", "test=false", "callbacks.checkpoint.every_n_steps=4")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The same training straight, done once whatever the fault, and stopped by a fault and resumed: both fingerprints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    straight = {}

    def call(*words, **variables):
        command = [sys.executable, *words]
        return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=200)

    def finished(done):
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]

    def both(fault, *words, saving=SAVING):
        command = (str(ROOT / "train.py"), *SHORT, *saving, *words)
        folder = tmp_path_factory.mktemp("exactness")
        if command not in straight:
            finished(call(*command, f"run_dir={folder}/straight"))
            straight[command] = kill_test.fingerprint(folder / "straight")
        assert call(*command, f"run_dir={folder}/stopped", DLZOO_FAULT=fault).returncode != 0, "the fault did not happen"
        finished(call("-m", "dlzoo", "resume", f"{folder}/stopped"))
        return straight[command], kill_test.fingerprint(folder / "stopped")

    return both


@pytest.mark.slow
def test_bf16_on_a_cpu_is_the_same_bits(commands):
    straight, resumed = commands("kill9@step=7", "trainer=cpu_fast")
    assert straight == resumed


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill9@step=7", "sigterm@step=3"])
def test_a_translator_goes_on_within_an_epoch(commands, data_dir, fault):
    """Killed in the second epoch, three steps after a checkpoint; told to stop in the first."""
    straight, resumed = commands(fault, f"data_dir={data_dir}", saving=PAIRS)
    assert straight == resumed


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["sigterm@step=7:rank=0", "sigterm@step=7:rank=1", "exception@step=9"])
def test_two_processes_go_on_as_two(commands, fault):
    """A signal to either of them stops both after the same step, and each gets its own random numbers back."""
    straight, resumed = commands(fault, *DROPOUT, "trainer=ddp_cpu")
    assert straight == resumed


@pytest.mark.slow
@pytest.mark.parametrize("words", [("kill9@step=9", "trainer=cpu"), ("sigterm@step=7", "trainer=ddp_cpu")])
def test_what_is_frozen_goes_on_as_it_was(commands, words):
    """Within the epoch in which the head alone is trained, and in the next, in which all is; with batch norm."""
    transfer = ("model=resnet20", "callbacks=transfer", "callbacks.transfer.unfreeze_at=1")
    straight, resumed = commands(*words, *transfer)
    assert straight == resumed


def _fit_with_scaler(folder, resume=False):
    """Digits in fp16 with a loss scaler, which a CPU can do, though a config may not ask for it there."""
    from lightning.pytorch.plugins import MixedPrecision

    from dlzoo.run import build

    words = [*DROPOUT, *SHORT, *SAVING, "trainer=cpu", f"run_dir={folder}", "optimizer.fused=false", "data.crop_padding=1"]
    plain = config.check(dlzoo.compose(*words))
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    task, data, trainer = build(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
    newest = str(checkpoints.newest(folder / "checkpoints")) if resume else None
    trainer.fit(task, datamodule=data, ckpt_path=newest, weights_only=True)
    return checkpoints.read_checkpoint(folder / "checkpoints" / "last.ckpt")


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_fp16_with_a_scaler_is_the_same_bits(tmp_path, monkeypatch):
    whole = _fit_with_scaler(tmp_path / "whole")
    monkeypatch.setenv("DLZOO_FAULT", "exception@step=7")
    with pytest.raises(RuntimeError, match="DLZOO_FAULT"):
        _fit_with_scaler(tmp_path / "half")
    monkeypatch.delenv("DLZOO_FAULT")
    resumed = _fit_with_scaler(tmp_path / "half", resume=True)
    assert whole["MixedPrecision"] == resumed["MixedPrecision"] and whole["MixedPrecision"]["scale"] != 2.0**10
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random"):
        assert kill_test.digest(whole[key]) == kill_test.digest(resumed[key]), key


@pytest.mark.gpu
@pytest.mark.parametrize(("words", "tolerance"), [(("trainer.deterministic=true", "trainer.precision=32"), 0.0), ((), 1e-3)])
def test_a_gpu_goes_on(tmp_path, words, tolerance):
    """Deterministic: the same bits. With the fastest kernels: the same batches, losses to 1e-3."""
    variables = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        straight, resumed = commands("kill9@step=7", *DROPOUT, "trainer=gpu", *words)
    if tolerance == 0:
        assert straight == resumed
    for key in (key for key in straight if key.endswith("train/loss")):
        assert float.fromhex(resumed[key]) == pytest.approx(float.fromhex(straight[key]), rel=tolerance or 1e-12)


def test_the_signal_that_is_only_noted_is_found_later():
    from dlzoo import signals

    with signals.listening():
        signals.deferred(True)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM
        with pytest.raises(signals.Stopped) as caught:
            signals.deferred(False)
        assert caught.value.exit_code == 143
    with signals.listening():
        assert signals.requested() == 0
        with pytest.raises(signals.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
