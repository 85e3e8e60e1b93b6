"""Which parts of a network FSDP2 gathers one after the other; the training itself is in tests/test_devices.py."""

import os

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

import dlzoo
from dlzoo.models.vision.mlp import Layer, mlp
from dlzoo.models.vision.resnet import BasicBlock
from dlzoo.strategies.buffers import broadcast_buffers
from dlzoo.strategies.fsdp import blocks, shard


@pytest.fixture
def alone(monkeypatch):
    """A process group of one."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()
    os.environ.pop("MASTER_ADDR", None)


def test_the_blocks_are_what_a_network_repeats():
    assert [type(block) for block in blocks(mlp([8, 8, 8]))] == [Layer] * 3
    assert [type(block) for block in blocks(dlzoo.create_model("resnet20"))] == [BasicBlock] * 9
    assert list(blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))) == []


def test_blocks_inside_blocks_are_gathered_with_them():
    inner = nn.Sequential(Layer(2, 2, 0.0, "relu"))
    outer = nn.ModuleList([nn.ModuleDict({"inner": inner})])
    assert list(blocks(nn.ModuleDict({"outer": outer}))) == [outer[0]]


def test_a_sharded_network_computes_the_same(alone):
    torch.manual_seed(0)
    net = mlp([8, 8], in_channels=1, side=4)
    x = torch.randn(3, 1, 4, 4)
    expected = net(x)
    shard(net, alone)
    assert isinstance(net, FSDPModule) and all(isinstance(layer, FSDPModule) for layer in net.layers)
    shard(net, alone)  # the test after the training finds it sharded
    torch.testing.assert_close(net(x), expected)
    assert list(net.state_dict()) == list(mlp([8, 8], in_channels=1, side=4).state_dict())


def test_without_other_ranks_buffers_stay():
    task = nn.ModuleDict({"net": nn.BatchNorm1d(2)})
    broadcast_buffers(task)
    assert torch.equal(task["net"].running_mean, torch.zeros(2))
