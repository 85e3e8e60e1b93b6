"""Folders of shares are read as one checkpoint, and nothing in them is run."""

import os
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp

from dlzoo import checkpoints, sharded
from dlzoo.errors import CheckpointError, UnsafeError


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.fixture
def shares(tmp_path) -> Path:
    """What FSDP2 writes, from a single process."""
    weights = {"net.head.weight": torch.arange(12.0).reshape(3, 4), "net.norm.running_mean": torch.ones(3)}
    optimizer = {"state": {"net.head.weight": {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}
    path = tmp_path / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"state_dict": weights, "optimizer_0": optimizer}, checkpoint_id=path, no_dist=True)
    torch.save({"epoch": 2, "global_step": 7}, path / "meta.pt")
    return path


def test_shares_are_read_as_one_checkpoint(shares):
    found = sharded.read(shares)
    assert sharded.kind(shares) == "fsdp" and (found["epoch"], found["global_step"]) == (2, 7)
    assert set(found["state_dict"]) == {"net.head.weight", "net.norm.running_mean"}
    assert torch.equal(found["state_dict"]["net.head.weight"], torch.arange(12.0).reshape(3, 4))
    assert sharded.read(shares, weights=False) == {"epoch": 2, "global_step": 7, "state_dict": {}}
    assert set(checkpoints.network_weights(shares)) == {"head.weight", "norm.running_mean"}


def test_numbers_of_an_optimizer_are_read_without_their_pickle(shares):
    state = {
        "optimizer_0": {
            "state": {"net.head.weight": {"step": torch.tensor(0.0)}},
            "param_groups": [{"lr": 0.0, "betas": (0, 0)}],
        }
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, storage_reader=sharded.fsdp_reader(shares), planner=sharded.safe_planner(), no_dist=True)
    assert state["optimizer_0"]["param_groups"][0]["lr"] == 0.1
    assert state["optimizer_0"]["state"]["net.head.weight"]["step"] == 3


def test_a_whole_folder_is_whole(shares):
    assert sharded.damage(shares) == "" and checkpoints.damage(shares) == ""


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_what_is_cut_short_or_missing_is_told(shares, name):
    content = (shares / name).read_bytes()
    (shares / name).write_bytes(content[: len(content) // 2])
    assert name in sharded.damage(shares)
    with pytest.raises(CheckpointError, match="can not be read"):
        sharded.read(shares)
    (shares / name).unlink()
    assert sharded.damage(shares)
    with pytest.raises(CheckpointError):
        sharded.read(shares)


def test_a_share_that_is_damaged_is_never_the_newest(shares):
    shutil.copytree(shares, shares.with_name("previous.ckpt"))
    (shares / "__0_0.distcp").write_bytes(b"")
    assert checkpoints.newest(shares.parent) == shares.with_name("previous.ckpt")


def test_an_index_that_would_run_something_is_refused(shares, tmp_path):
    (shares / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(UnsafeError, match="index asks to run"):
        sharded.read(shares)
    assert not (tmp_path / "ran").exists()


def test_numbers_beside_the_tensors_that_would_run_something_are_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"state_dict": {"net.a": torch.ones(2)}, "optimizer_0": {"lr": Payload(tmp_path / "ran")}}, checkpoint_id=path)
        reader, planner = sharded.fsdp_reader(path), sharded.safe_planner()
        with pytest.raises(UnsafeError, match="more than tensors"), sharded.reading(path):
            dcp.load({"optimizer_0": {"lr": 0.0}}, storage_reader=reader, planner=planner, no_dist=True)
    assert not (tmp_path / "ran").exists()


def test_a_payload_in_deepspeeds_files_is_refused(tmp_path):
    pytest.importorskip("deepspeed")
    folder = tmp_path / "last.ckpt" / "checkpoint"
    folder.mkdir(parents=True)
    torch.save({"module": {}, "dp_world_size": 1}, folder / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": Payload(tmp_path / "ran")}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(UnsafeError):
        sharded.read(folder.parent)
    assert not (tmp_path / "ran").exists()


def test_a_missing_share_of_deepspeeds_is_told(tmp_path):
    pytest.importorskip("deepspeed")
    folder = tmp_path / "last.ckpt" / "checkpoint"
    folder.mkdir(parents=True)
    torch.save({"module": {}, "dp_world_size": 2}, folder / "mp_rank_00_model_states.pt")
    torch.save({}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert sharded.kind(folder.parent) == "deepspeed" and sharded.world_size(folder.parent) == 1
    assert "share of a rank" in checkpoints.damage(folder.parent)


def test_other_folders_are_no_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        sharded.read(tmp_path)
    assert sharded.damage(tmp_path) and sharded.kind(tmp_path) == "" == sharded.kind(tmp_path / "nothing")
