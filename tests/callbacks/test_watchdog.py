"""What the watchdog makes of the files of the other ranks; real processes that die and hang are in tests/test_devices.py."""

import json
import os
import time
from types import SimpleNamespace

import pytest

from dlzoo.callbacks import watchdog
from dlzoo.callbacks.watchdog import Watchdog
from dlzoo.errors import DataError, DlzooError
from dlzoo.signals import Stopped


class Strategy:
    def broadcast(self, value):
        return "token" if len(value) == 32 else value


@pytest.fixture
def dog(tmp_path, monkeypatch):
    """A watchdog of rank 0 of two that looks every 0.02 s; leaving the process is noted, not done."""
    left = []
    monkeypatch.setattr(watchdog.os, "_exit", left.append)
    monkeypatch.setattr(watchdog, "_take_over", lambda: None)
    made = Watchdog(str(tmp_path), silent_seconds=0.5, every_seconds=0.02, grace_seconds=0.4)
    made.left = left
    trainer = SimpleNamespace(world_size=2, global_rank=0, is_global_zero=True, strategy=Strategy(), global_step=7)
    made.trainer = trainer
    made.setup(trainer, None, "fit")
    yield made
    made._leave.set()


def other(dog, **changes):
    """Rank 1's sign of life."""
    here = {"pid": os.getpid(), "began": watchdog._began(os.getpid()), "host": os.uname().nodename}
    life = {"token": "token", "beat": 1, "step": 5, "state": "", "code": 0} | here | changes
    (dog.folder / "rank_1.json").write_text(json.dumps(life))


def wait(condition, seconds=3.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_rank_that_beats_is_left_alone(dog):
    for beat in range(40):
        other(dog, beat=beat)
        time.sleep(0.02)
    assert not dog.culprit and not dog.left
    dog.teardown(dog.trainer, None, "fit")
    assert not (dog.folder / "rank_0.json").exists()


def test_silence_is_told_with_its_step(dog, monkeypatch, capsys):
    killed = []
    monkeypatch.setattr(watchdog.os, "kill", lambda pid, number: killed.append((pid, number)))
    other(dog)
    assert wait(lambda: dog.left)
    assert dog.culprit.startswith("rank 1 silent since step 5") and dog.left == [1]
    assert killed == [(os.getpid(), 9)]  # here the other is this very process
    assert "error: rank 1 silent since step 5" in capsys.readouterr().err


def test_a_process_that_is_gone_is_dead_at_once(dog):
    other(dog, began="1")  # the number belongs to another process by now
    assert wait(lambda: dog.culprit, 0.45)
    assert dog.culprit.startswith("rank 1 died at step 5")


def test_a_broken_exchange_becomes_the_name_of_the_culprit(dog):
    other(dog, state="DataError: a picture is damaged", code=3)
    with pytest.raises(DlzooError, match="rank 1 failed at step 5: DataError: a picture is damaged") as caught:
        dog.on_exception(dog.trainer, None, RuntimeError("[gloo] Connection closed by peer"))
    assert caught.value.exit_code == 3
    time.sleep(0.6)
    assert dog.left == []  # the main thread leaves by itself


def test_an_own_fault_is_told_to_the_others(dog):
    dog.on_exception(dog.trainer, None, DataError("a picture is damaged"))
    life = json.loads((dog.folder / "rank_0.json").read_text())
    assert (life["state"], life["code"], life["step"]) == ("a picture is damaged", 3, 7)


def test_a_stop_that_was_asked_for_is_no_fault(dog):
    dog.on_exception(dog.trainer, None, Stopped(15))
    assert not (dog.folder / "rank_0.json").exists()
    other(dog, began="1")
    time.sleep(0.1)
    assert not dog.culprit and not dog.left


def test_files_of_another_time_do_not_count(dog):
    other(dog, token="old", began="1")
    time.sleep(0.2)
    assert not dog.culprit


def test_a_process_alone_watches_nothing(tmp_path):
    dog = Watchdog(str(tmp_path))
    dog.setup(SimpleNamespace(world_size=1), None, "fit")
    assert dog._thread is None and list(tmp_path.iterdir()) == []


def test_ranks_that_do_not_agree_on_the_directory_stop(tmp_path, monkeypatch):
    strategy = SimpleNamespace(broadcast=lambda value: "/elsewhere")
    trainer = SimpleNamespace(world_size=2, global_rank=1, is_global_zero=False, strategy=strategy)
    with pytest.raises(DlzooError, match="do not agree on the run directory"):
        Watchdog(str(tmp_path)).setup(trainer, None, "fit")
