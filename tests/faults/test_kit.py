"""The fault kit itself, and the checkpoint files that it spoils."""

import signal

import pytest
import torch

from dlzoo import checkpoints, faults
from dlzoo.errors import ConfigError


def test_faults_are_read():
    one, two = faults.parse("kill9@step=37, enospc@save=2:bytes=50%:rank=1")
    assert (one.what, one.where, one.number, one.rank) == ("kill9", "step", 37, None)
    assert (two.what, two.where, two.number, two.share, two.rank) == ("enospc", "save", 2, 0.5, 1)


@pytest.mark.parametrize("text", ["kill9", "kill9@", "kill@step=3", "kill9@stop=3", "kill9@step=x", "kill9@step=3:colour=red"])
def test_a_fault_that_is_none_is_told(text):
    with pytest.raises(ConfigError) as caught:
        faults.parse(text)
    assert "DLZOO_FAULT" in caught.value.where and "kill9@step=37" in caught.value.fix


def test_each_happens_once_and_to_its_process(monkeypatch):
    monkeypatch.setenv("DLZOO_FAULT", "exception@step=3,oom@val=1:rank=1")
    assert faults.due("step", 2) is None
    with pytest.raises(RuntimeError, match="step 3"):
        faults.strike(faults.due("step", 3))
    assert faults.due("step", 3) is None and faults.due("val", 1) is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(torch.OutOfMemoryError):
        faults.strike(faults.due("val", 1))


def test_once_in_a_restarted_job(monkeypatch, tmp_path):
    monkeypatch.setenv("DLZOO_FAULT", f"kill9@step=3:file={tmp_path}/done")
    assert faults.due("step", 3).what == "kill9" and (tmp_path / "done").exists()
    monkeypatch.setenv("DLZOO_FAULT", f"kill9@step=3:file={tmp_path}/done,")
    assert faults.due("step", 3) is None


def _save(folder, name, value):
    temporary = folder / f"{checkpoints.TEMPORARY}{name}"
    checkpoints.write({"state_dict": {"w": torch.full((1000,), value)}}, temporary)
    checkpoints.publish(temporary, folder / name)


def _value(path):
    return checkpoints.read_checkpoint(path)["state_dict"]["w"][0].item()


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for value in range(4):
        _save(tmp_path, "last.ckpt", float(value))
        if value == 1:
            checkpoints.keep(tmp_path / "last.ckpt", "best.ckpt")
    found = {path.name: _value(path) for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 3.0, "previous.ckpt": 2.0, "best.ckpt": 1.0}
    assert checkpoints.newest(tmp_path).name == "last.ckpt"


def test_every_changed_byte_of_the_tensors_is_found(tmp_path):
    _save(tmp_path, "last.ckpt", 1.0)
    good = (tmp_path / "last.ckpt").read_bytes()
    start = good.index(torch.full((1000,), 1.0).numpy().tobytes())
    for place in range(start, start + 4000, 97):
        for bit in (0, 7):
            spoilt = bytearray(good)
            spoilt[place] ^= 1 << bit
            (tmp_path / "x.ckpt").write_bytes(bytes(spoilt))
            assert checkpoints.damage(tmp_path / "x.ckpt"), place
    assert checkpoints.damage(tmp_path / "last.ckpt") == ""


def test_no_checkpoint_at_all_is_none(tmp_path):
    assert checkpoints.newest(tmp_path) is None


def test_a_full_disk_leaves_nothing_and_raises_what_the_disk_said(tmp_path, monkeypatch):
    _save(tmp_path, "last.ckpt", 1.0)
    faults._saves = 0
    monkeypatch.setenv("DLZOO_FAULT", "enospc@save=1:bytes=30%")
    with pytest.raises(OSError, match="No space left"):
        _save(tmp_path, "last.ckpt", 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"] and _value(tmp_path / "last.ckpt") == 1.0


def test_random_numbers_come_back():
    import random

    import numpy as np

    from dlzoo.callbacks.randomness import random_state, restore_random_state

    state = random_state()

    def draw():
        return random.random(), np.random.rand(), np.random.standard_normal(), torch.rand(2).tolist(), random.gauss(0, 1)

    first = draw()
    assert draw() != first
    restore_random_state(state)
    assert draw() == first


def test_an_ignored_signal_in_a_loader_process():
    from dlzoo.signals import ignore_in_worker

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        ignore_in_worker(0)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
