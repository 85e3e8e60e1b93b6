"""Rows 13, 14, 18 to 23, 28, 30 to 35, 38 and 43 to 45: names, archives, directories, determinism, leaks, secrets, packages."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import kill_test
import pytest
from short_runs import SHORT, STEPS, goes_on, polite, summary

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("data.batchsize=8", "data.batch_size"),
        ("optimiser.lr=1", "optimizer.lr"),
    ],
)
def test_row_13_an_unknown_key(server, tmp_path, word, right):
    code, job = server.run("train", word, cwd=tmp_path)
    assert code == 2 and not (tmp_path / "runs").exists()
    polite(job, right, word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("trainer.max_epochs=ten", "whole number"), ("optimizer.lr=-1", "above 0"), ("model=resnt20", "resnet20")],
)
def test_row_14_a_wrong_type_range_or_choice(server, tmp_path, word, expected):
    code, job = server.run("train", word, cwd=tmp_path)
    assert code == 2 and not (tmp_path / "runs").exists()
    polite(job, expected, word)


def test_row_18_a_hostile_safetensors_header(tmp_path):
    """The cache of decoded data is read with bounds: each of these is a damaged cache, and nothing more."""
    from dlzoo.data import cache

    huge = (1 << 40).to_bytes(8, "little") + b"{}"
    overlap = json.dumps({"a": {"dtype": "F32", "shape": [9999999], "data_offsets": [0, 4]}}).encode()
    for number, content in enumerate(
        [huge, b"", b"\0" * 8, len(overlap).to_bytes(8, "little") + overlap + b"\0" * 4, b"{" * 5000]
    ):
        path = tmp_path / f"dlzoo-x-{number}.safetensors"
        path.write_bytes(content)
        assert cache._load(path) is None


@pytest.mark.parametrize("name", ["../evil", "/tmp/dlzoo-evil", "a/../../evil"])
def test_row_19_an_archive_that_would_write_outside(tmp_path, name):
    """Links, devices and bombs: tests/data/test_archive.py."""
    from dlzoo.data.archive import extract
    from dlzoo.errors import UnsafeError

    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "x.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with zipfile.ZipFile(tmp_path / "in" / "x.zip", "w") as archive:
        archive.writestr(name, "evil")
    for path in (tmp_path / "in").iterdir():
        with pytest.raises(UnsafeError) as caught:
            extract(path, tmp_path / "in" / "out")
        assert caught.value.exit_code == 9
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "x.tar", "x.zip"]
    assert not Path("/tmp/dlzoo-evil").exists()


@pytest.fixture
def https(monkeypatch):
    """The downloader's connection answered from memory: content for each address, or an error."""
    from dlzoo.data import download

    served, asked = {}, []

    class Response:
        status, headers = 200, {}

        def __init__(self, content):
            self.content = content

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def read1(self, size):
            part, self.content = self.content[:size], self.content[size:]
            return part

    def connect(url, first_byte):
        asked.append((url, first_byte))
        answer = served[url]
        if isinstance(answer, Exception):
            raise answer
        return Response(answer)

    monkeypatch.setattr(download, "_open", connect)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.delenv("DLZOO_OFFLINE", raising=False)
    return served, asked


GOOD = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # SHA-256 of "hello"


def test_row_20_a_wrong_hash(https, tmp_path):
    from dlzoo.data.download import fetch
    from dlzoo.errors import DataError

    https[0]["https://one/x"] = b"other"
    with pytest.raises(DataError, match="expected 2cf24dba") as caught:
        fetch(["https://one/x"], tmp_path / "x", sha256=GOOD)
    assert caught.value.exit_code == 3 and not (tmp_path / "x").exists() and not (tmp_path / "x.part").exists()


def test_row_21_the_next_mirror_and_no_network_at_all(https, tmp_path, monkeypatch):
    """Dropped links, ranges and lies about lengths: tests/data/test_download.py, against a server."""
    from dlzoo.data.download import fetch
    from dlzoo.errors import DataError, UnsafeError

    https[0].update({"https://one/x": ConnectionResetError("gone"), "https://two/x": b"hello"})
    assert fetch(["https://one/x", "https://two/x"], tmp_path / "x", sha256=GOOD).read_bytes() == b"hello"
    assert [url for url, _ in https[1]] == ["https://one/x"] * 3 + ["https://two/x"]
    with pytest.raises(UnsafeError):
        fetch(["http://one/x"], tmp_path / "y", sha256=GOOD)
    monkeypatch.setenv("DLZOO_OFFLINE", "1")
    with pytest.raises(DataError, match="DLZOO_OFFLINE"):
        fetch(["https://two/x"], tmp_path / "y", sha256=GOOD)


def test_row_22_two_downloads_of_the_same_file(https, tmp_path):
    """Four at once: one fetches, the others find it."""
    from dlzoo.data.download import fetch

    https[0]["https://one/x"] = b"hello"
    barrier = threading.Barrier(4)

    def get():
        barrier.wait()
        fetch(["https://one/x"], tmp_path / "x", sha256=GOOD)

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(https[1]) == 1 and (tmp_path / "x").read_bytes() == b"hello"


def test_row_23_a_directory_that_is_trained_in(server, straight, tmp_path):
    """Exit 8 with the process's number; a process that is gone holds nothing. (32 starts at once: tests/test_run.py.)"""
    run = tmp_path / "run"
    job = server.start(*SHORT, f"run_dir={run}", DLZOO_FAULT="sigstop@step=9")
    _until(lambda: _state(job.pid) == "T")
    for words in (("resume", run), (*SHORT, f"run_dir={run}")):
        code, other = server.run(*words)
        assert code == 8, other.errors
        polite(other, "nothing in it was touched")
    assert f"process {job.pid} on " in server.run("resume", run)[1].errors
    job.send(signal.SIGKILL)
    server.wait(job)
    goes_on(server, run, straight)


@pytest.mark.slow
def test_row_28_a_logger_without_an_answer(server, tmp_path):
    """wandb with an account and no network: kept offline, no wait, metrics.csv complete, the way to send it later is told."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # a port that nobody listens at
        port = closed.getsockname()[1]
    words = (*SHORT, "logger=[csv,wandb]", "trainer.max_epochs=1", f"run_dir={tmp_path}/run")
    variables = {
        "WANDB_API_KEY": "0" * 40,
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
    }
    code, job = server.run(*words, **variables)
    assert code == 0, job.errors
    assert "wandb sync" in job.output and summary(tmp_path / "run")["status"] == "finished"
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_row_30_a_job_that_slurm_has_requeued(server, straight, tmp_path):
    """The same command, the same job number, another second: it finds its run, and another job does not."""
    words = (*SHORT, f"runs_dir={tmp_path}/runs", "name=mine")
    slurm = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train"}
    assert server.run(*words, **slurm, DLZOO_FAULT="sigterm@step=9")[0] == 143
    (run,) = (tmp_path / "runs" / "mine").iterdir()
    assert json.loads((run / "environment.json").read_text())["slurm_job"] == "77"
    code, job = server.run(*words, SLURM_JOB_ID="78", SLURM_RESTART_COUNT="1", DLZOO_FAULT="sigterm@step=9")
    assert code == 143 and len(list((tmp_path / "runs" / "mine").iterdir())) == 2
    code, job = server.run(*words, **slurm, SLURM_RESTART_COUNT="1")
    assert code == 0, job.errors
    assert len(list((tmp_path / "runs" / "mine").iterdir())) == 2
    assert kill_test.fingerprint(run) == straight


def test_row_30_ckpt_path_auto_and_resume_without_a_name(server, straight, tmp_path):
    words = (*SHORT, "name=mine", "ckpt_path=auto")
    assert server.run(*words, cwd=tmp_path, DLZOO_FAULT="kill9@step=9")[0] == -9
    assert server.run(*words, cwd=tmp_path, DLZOO_FAULT="kill9@step=14")[0] == -9
    (run,) = (tmp_path / "runs" / "mine").iterdir()
    code, job = server.run("resume", cwd=tmp_path)
    assert code == 0, job.errors
    assert f"runs/mine/{run.name}: killed" in job.output and kill_test.fingerprint(run) == straight
    code, job = server.run("resume", cwd=tmp_path)
    assert code == 2
    polite(job, "no unfinished run")
    assert server.run(*words, "trainer.max_epochs=1", cwd=tmp_path)[0] == 0
    assert len(list((tmp_path / "runs" / "mine").iterdir())) == 2


def test_row_31_the_same_seed_is_the_same_run(server, straight, tmp_path):
    assert server.run(*SHORT, f"run_dir={tmp_path}/run")[0] == 0
    assert kill_test.fingerprint(tmp_path / "run") == straight


def test_row_32_another_seed_is_another_run(server, straight, tmp_path):
    assert server.run(*SHORT, "seed=6", f"run_dir={tmp_path}/run")[0] == 0
    other = kill_test.fingerprint(tmp_path / "run")
    assert other["state_dict"] != straight["state_dict"] and other["step 1 train/loss"] != straight["step 1 train/loss"]


LEAKS = """
import gc, os, sys, threading
import torch
torch.set_num_threads(1)
import dlzoo
from dlzoo.callbacks.finite import FiniteLoss

page, seen = os.sysconf("SC_PAGE_SIZE"), {}
look = FiniteLoss.on_train_batch_start

def on_train_batch_start(self, trainer, task, batch, index):
    look(self, trainer, task, batch, index)
    if trainer.global_step in (1000, 4900):
        gc.collect()
        seen[trainer.global_step] = int(open("/proc/self/statm").read().split()[1]) * page / 1e6

FiniteLoss.on_train_batch_start = on_train_batch_start
tiny = ["trainer=cpu", "model=mlp", "model.hidden=[8]", "test=false", "trainer.limit_val_batches=0"]
long = [*tiny, "trainer.max_epochs=-1", "trainer.max_steps=5000", "trainer.log_every_n_steps=500"]
long += [f"run_dir={sys.argv[1]}/long"]
dlzoo.train(dlzoo.compose(*long))
growth = seen[4900] - seen[1000]
assert growth < 20, f"{growth:.1f} MB"
counts = []
for number in range(12):
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", f"run_dir={sys.argv[1]}/{number}"]
    dlzoo.train(dlzoo.compose(*tiny, *short))
    gc.collect()
    counts.append((len(os.listdir("/proc/self/fd")), threading.active_count()))
assert max(counts[-1][0] - counts[1][0], counts[-1][1] - counts[1][1]) <= 2, counts
print("grew by", round(growth, 1), "MB;", counts[1], "->", counts[-1])
"""


@pytest.mark.slow
def test_rows_33_and_34_memory_files_and_threads_do_not_grow(tmp_path):
    """5,000 steps within 20 MB; after twelve runs in one process as many open files and threads as after two."""
    (tmp_path / "leaks.py").write_text(LEAKS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(tmp_path / "leaks.py"), str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]


def test_row_38_a_strange_path_and_another_language(server, tmp_path):
    """Spaces, other letters, a comma for the decimal point: the numbers in the files keep theirs."""
    run = tmp_path / ("ein Lauf, mit ü & 'so'" + "x" * 80)
    code, job = server.run(
        *SHORT, "trainer.max_epochs=1", f'run_dir="{run}"', LC_ALL="de_DE.UTF-8", LANG="de_DE.UTF-8", TZ="Asia/Tokyo"
    )
    assert code == 0, job.errors
    assert "," not in (run / "metrics.csv").read_text().splitlines()[1].split(",")[3] and summary(run)["steps"] == STEPS // 3
    code, job = server.run("evaluate", run)
    assert code == 0, job.errors


def test_row_43_no_secret_reaches_a_run(server, tmp_path):
    secret = "0123456789abcdef0123456789abcdef01234567"
    variables = dict.fromkeys(("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"), secret)
    words = (*SHORT, "trainer.max_epochs=1", "logger=[csv,tensorboard,wandb]", f"run_dir={tmp_path}/run")
    code, job = server.run(*words, **variables, WANDB_MODE="offline", DLZOO_FAULT="exception@step=3")
    assert code == 1, job.errors
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 8 and [path for path in files if secret.encode() in path.read_bytes()] == []
    assert secret not in job.output + job.errors


def test_row_44_an_evaluation_by_itself_measures_the_same(server, tmp_path):
    """The last batch is not full; the test of the training and that of `dlzoo evaluate` agree."""
    assert server.run(*SHORT, "data.eval_batch_size=77", f"run_dir={tmp_path}/run")[0] == 0
    code, job = server.run("evaluate", tmp_path / "run", "data.eval_batch_size=50", "--json")
    assert code == 0, job.errors
    alone, within = json.loads(job.output), summary(tmp_path / "run")["metrics"]
    for name in ("test/acc", "test/loss"):
        assert alone[name] == pytest.approx(within[name], rel=1e-6)


def test_row_45_versions_that_stole_are_not_installed():
    import tomllib
    from importlib.metadata import version

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    assert not wanted["lightning"].contains("2.6.2") and not wanted["lightning"].contains("2.6.3")
    assert wanted["lightning"].contains(version("lightning")) and not wanted["torch"].contains("2.9.1")


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def _until(true, seconds=60):
    import time

    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
