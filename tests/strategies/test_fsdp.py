"""Which parts of a network FSDP2 gathers one after the other; the training itself is in tests/test_devices.py."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import dlzoo
from dlzoo.models.language.transformer import Transformer, TransformerSize
from dlzoo.models.sequence.seq2seq import seq2seq_additive
from dlzoo.models.vision.mlp import Layer, mlp
from dlzoo.models.vision.resnet import BasicBlock
from dlzoo.ops.search import write
from dlzoo.strategies.buffers import broadcast_buffers
from dlzoo.strategies.fsdp import FSDP, blocks, shard
from dlzoo.strategies.hooks import without_hooks

TRANSLATORS = {
    "transformer": lambda: Transformer(11, 11, TransformerSize(12, 2, 3, 20), dropout=0.0),
    "seq2seq": lambda: seq2seq_additive(11, 11, embedding=6, width=8, layers=2, dropout=0.0),
}


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


@pytest.mark.parametrize("trainer", ["fsdp", "fsdp_cpu"])
def test_a_validation_may_come_before_the_training(alone, trainer):
    net = mlp([8], in_channels=1, side=4)
    shard(net, alone)
    with torch.inference_mode(dlzoo.compose(f"trainer={trainer}")["trainer"]["inference_mode"]), torch.no_grad():
        net(torch.randn(3, 1, 4, 4))
    net(torch.randn(3, 1, 4, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def sentences():
    """Sources, the second filled up, and what is written of them."""
    source = torch.tensor([[3, 4, 5, 6, 2], [7, 8, 2, 0, 0]])
    return source, torch.tensor([[1, 9, 8, 7], [1, 3, 4, 2]])


@pytest.mark.parametrize("kind", TRANSLATORS)
def test_a_sharded_translator_learns_the_same(alone, kind):
    """No block's weights are used outside of its forward, where they are in shares."""
    torch.manual_seed(0)
    net = TRANSLATORS[kind]()
    plain, (source, target) = copy.deepcopy(net), sentences()
    shard(net, alone)
    for one in (net, plain):
        one(source, target).logsumexp(2).sum().backward()
    for (name, ours), theirs in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, msg=name)


@pytest.mark.parametrize("kind", TRANSLATORS)
def test_a_sharded_translator_writes_with_whole_weights(alone, kind):
    """No rank may need another within a search: the weights are whole all through it, and in shares again after it."""
    torch.manual_seed(0)
    net = TRANSLATORS[kind]().eval()
    plain, (source, target) = copy.deepcopy(net), sentences()
    shard(net, alone)

    def shares():
        return {isinstance(parameter, DTensor) for parameter in net.parameters()}

    def step(*given):
        found = type(net).step(net, *given)
        assert shares() == {False}
        return found

    for _ in range(2):  # before any forward, and after one
        assert shares() == {True}
        with torch.no_grad(), FSDP().whole(net):
            net.step = step
            for ours, theirs in zip(write(net, source, 1, 2, 7, 3), write(plain, source, 1, 2, 7, 3), strict=True):
                torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(net.align(source, target), plain.align(source, target))
            assert shares() == {False}
            del net.step
        assert shares() == {True}
        torch.testing.assert_close(net(source, target), plain(source, target))
        for module in net.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # the last part of a forward stays whole for the backward


def test_hooks_come_back_whatever_happens():
    net, seen = mlp([8, 8], in_channels=1, side=4), []
    net.layers[0].register_forward_hook(lambda *_: seen.append("after"))
    net.register_forward_pre_hook(lambda *_: seen.append("before"))
    x = torch.randn(3, 1, 4, 4)
    with pytest.raises(RuntimeError, match="stop"), without_hooks(net):
        net(x)
        raise RuntimeError("stop")
    assert seen == []
    net(x)
    assert seen == ["before", "after"]


def test_without_other_ranks_buffers_stay():
    task = nn.ModuleDict({"net": nn.BatchNorm1d(2)})
    broadcast_buffers(task)
    assert torch.equal(task["net"].running_mean, torch.zeros(2))
