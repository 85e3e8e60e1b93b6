"""`dlzoo doctor`: every line says ok, note or fix; what is broken gets a line, no traceback, and nothing secret is printed."""

import os
import re
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from dlzoo import cli as program
from dlzoo import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def lines(monkeypatch, tmp_path):
    """What the doctor says, by the name of the line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DLZOO_DATA", raising=False)
    return lambda: {line.what: line for line in doctor.examine()}


def test_it_is_a_block_to_paste(capsys, monkeypatch, tmp_path):
    import torch

    monkeypatch.chdir(tmp_path)
    assert program.main(["doctor"]) == 0
    out = capsys.readouterr().out
    rows = out.splitlines()
    assert len(rows) >= 25 and all(re.match(r".{15} (ok|note|fix) {1,4}\S", row) for row in rows), out
    assert torch.__version__.split("+")[0] in out and sys.version.split()[0] in out
    for what in ("python", "torch", "lightning", "cuda", "native bf16", "threads", "memory", "free disk here", "data", "cache"):
        assert any(row.startswith(what) for row in rows), what
    assert "shared memory" in out and "downloads" in out and "Traceback" not in out
    assert list(tmp_path.iterdir()) == [], "it leaves nothing"


def test_every_fix_says_what_to_do(lines, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(10e9, 9.9e9, 0.1e9))
    monkeypatch.setattr(doctor, "_meminfo", lambda key: 8e9 if key == "MemTotal" else 0.5e9)
    monkeypatch.setattr(doctor, "_cgroup_limit", lambda: 0.0)
    found = lines()
    for what in ("shared memory", "free disk here", "memory"):
        assert found[what].state == "fix" and found[what].fix, what
    assert "--shm-size" in found["shared memory"].fix
    assert all(line.fix for line in found.values() if line.state == "fix")


def test_a_container_has_its_own_limit(lines, monkeypatch):
    monkeypatch.setattr(doctor, "_meminfo", lambda key: 64e9)
    monkeypatch.setattr(doctor, "_cgroup_limit", lambda: 4e9)
    monkeypatch.setattr(doctor, "_cgroup_use", lambda: 3e9)
    assert lines()["memory"].found == "1.0 of 4.0 GB free" and lines()["memory"].state == "fix"


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_releases_that_steal_are_named(lines, monkeypatch, version):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "lightning" else real(name))
    line = lines()["lightning"]
    assert line.state == "fix" and "STEALS" in line.found and "change your keys" in line.fix


def test_old_and_missing_packages(lines, monkeypatch):
    versions = {"torch": "2.9.1+cpu", "torchmetrics": None}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "x") if name in versions else real(name))
    found = lines()
    assert found["torch"].state == "fix" and "2.11 is needed" in found["torch"].found
    assert found["torchmetrics"].state == "fix" and found["torchmetrics"].fix == "pip install torchmetrics"


def test_extras_that_are_missing_are_no_fault(lines, monkeypatch):
    real = doctor.util.find_spec
    monkeypatch.setattr(doctor.util, "find_spec", lambda name, *rest: None if name in ("onnx", "wandb") else real(name, *rest))
    found = lines()
    assert found["onnx"].state == "note" and 'pip install "dlzoo[onnx]"' in found["onnx"].fix
    assert found["wandb"].state == "note" and "wandb login" not in found


def test_what_breaks_under_the_doctor_is_a_line(lines, monkeypatch):
    import torch

    def broken():
        raise RuntimeError("CUDA driver initialization failed\nand a long story")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    found = lines()
    assert found["devices"].state == "fix" and found["devices"].found == "RuntimeError: CUDA driver initialization failed"
    assert "memory" in found, "the rest is looked at"


def test_a_gpu_and_its_memory(lines, monkeypatch):
    import torch

    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": lambda index: (1e9 if index else 60e9, 80e9),
        "get_device_capability": lambda index=0: (9, 0),
        "get_device_name": lambda index=0: "Some GPU",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    found = lines()
    assert found["cuda:0"].state == "ok" and "60.0 of 80.0 GB free, capability 9.0" in found["cuda:0"].found
    assert found["cuda:1"].state == "fix" and "nvidia-smi" in found["cuda:1"].fix
    assert found["native bf16"].found == "yes" and "driver" in found


def test_a_driver_that_torch_does_not_see(lines, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_driver", lambda: "535.104.05")
    assert lines()["cuda"].state == "fix" and "535.104.05" in lines()["cuda"].found


def test_data_sets_that_are_found(lines, monkeypatch, tmp_path):
    assert lines()["data"].state == "note"
    for name in ("cifar10/train", "mnist"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    (tmp_path / "sets" / "mnist" / "train-images-idx3-ubyte.gz").touch()
    monkeypatch.setenv("DLZOO_DATA", str(tmp_path / "sets"))
    assert lines()["data"].found.endswith("digits, mnist, cifar10") and lines()["data"].state == "ok"
    monkeypatch.setenv("DLZOO_DATA", str(tmp_path / "nowhere"))
    assert lines()["data"].state == "fix"


def test_places_that_can_not_be_written(lines, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "file"))
    assert lines()["cache"].state == "fix" and lines()["cache"].fix == "DLZOO_CACHE=PATH"


def test_threads_beyond_the_cores(lines, monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 512)
    assert lines()["threads"].state == "note" and lines()["threads"].fix.startswith("OMP_NUM_THREADS=")


def test_nothing_secret_is_printed(capsys, monkeypatch, tmp_path):
    hidden = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "HF_TOKEN": "hf_NotARealTokenNotARealToken",
        "HTTPS_PROXY": "http://me:proxy-password@127.0.0.1:9",
        "OMP_NUM_THREADS": "hunter2-in-the-wrong-place",
        "WANDB_MODE": "hunter2-in-the-wrong-place",
    }
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    assert program.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert not [value for value in [*hidden.values(), "proxy-password"] if value in out], out
    assert "account: yes" in out and "HTTPS_PROXY is set" in out


def test_the_account_of_wandb_is_only_a_yes_or_a_no(lines, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert "account: no" in lines()["wandb login"].found
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password netrc-secret\n")
    (tmp_path / "netrc").chmod(0o600)
    found = lines()["wandb login"]
    assert "account: yes" in found.found and "netrc-secret" not in str(found)


def test_the_home_of_the_user_is_a_tilde(monkeypatch):
    assert doctor._home(Path.home() / "x" / "y") == f"~{os.sep}x{os.sep}y"
    assert doctor._home(Path("/elsewhere")) == "/elsewhere"
