"""The processes of a job share one run directory, whoever started them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlzoo import launch
from dlzoo.errors import DlzooError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
NAMES += ("MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_STEP_ID")
NAMES += (launch.RUN_DIR, launch.CHECKPOINT)

RANK = """
import json, os, sys, time
from pathlib import Path
from dlzoo import launch
runs = Path(sys.argv[1])
told = launch.chosen(runs, timeout=20)
if told is None:
    time.sleep(0.3)
    made = runs / f"made-by-{launch.global_rank()}{os.environ.get('SUFFIX', '')}"
    made.mkdir()
    told = launch.Chosen(made.resolve(), "some.ckpt")
    with launch.telling(told, runs):
        assert launch.chosen(runs) == told  # what a child of this process would be told
        time.sleep(1.5)
print(json.dumps([launch.global_rank(), str(told.run_dir), told.ckpt_path]))
"""


@pytest.fixture
def alone(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def torchrun(rank, port="29500", run="abc"):
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return place | here | {"TORCHELASTIC_RUN_ID": run, "TORCHELASTIC_RESTART_COUNT": "0"}


def srun(rank, job="7"):
    job_of = {"SLURM_JOB_ID": job, "SLURM_JOB_NAME": "train", "SLURM_STEP_ID": "0"}
    return {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "3"} | job_of


def start(runs: Path, variables: dict[str, str]) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | variables
    return subprocess.Popen([sys.executable, "-c", RANK, str(runs)], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("variables", [torchrun, srun])
def test_three_ranks_share_what_the_first_makes(tmp_path, variables):
    processes = [start(tmp_path, variables(rank)) for rank in (2, 1, 0)]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert said == [[rank, str((tmp_path / "made-by-0").resolve()), "some.ckpt"] for rank in (2, 1, 0)]
    assert [path.name for path in tmp_path.iterdir()] == ["made-by-0"]  # the note is gone


def test_two_launches_at_once_do_not_mix(tmp_path):
    ports = ("29500", "29501")
    processes = [start(tmp_path, torchrun(rank, port) | {"SUFFIX": f"-{port}"}) for port in ports for rank in (1, 0)]
    said = [json.loads(process.communicate(timeout=60)[0])[1] for process in processes]
    assert said == [str((tmp_path / f"made-by-0-{port}").resolve()) for port in ports for _ in range(2)]


def test_a_process_that_is_alone_makes_its_own(tmp_path, alone):
    assert not launch.launched_from_outside() and launch.global_rank() == 0
    assert launch.chosen(tmp_path) is None
    with launch.telling(launch.Chosen(tmp_path / "mine"), tmp_path):
        assert launch.chosen(tmp_path) == launch.Chosen(tmp_path / "mine", None)
        assert list(tmp_path.iterdir()) == []
    assert launch.chosen(tmp_path) is None and launch.RUN_DIR not in os.environ


def test_an_interactive_job_is_no_launch(monkeypatch, alone):
    for name, value in (srun(1) | {"SLURM_JOB_NAME": "bash"}).items():
        monkeypatch.setenv(name, value)
    assert not launch.launched_from_outside()


def test_what_a_launch_before_left_is_not_taken(tmp_path, monkeypatch, alone):
    (tmp_path / "old").mkdir()
    for name, value in torchrun(0).items():
        monkeypatch.setenv(name, value)
    key = launch._key()
    monkeypatch.setenv("MASTER_PORT", "1")
    assert launch._key() != key
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert launch._key() != key


def test_a_rank_that_is_never_told_says_so(tmp_path, monkeypatch, alone):
    for name, value in srun(2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DlzooError, match="rank 0 has not said where the run is") as caught:
        launch.chosen(tmp_path, timeout=0.2)
    assert "rank 2" in str(caught.value) and caught.value.exit_code == 1
