"""FSDP2: each device keeps a share of the weights, gradients and optimizer, and gathers a block's weights while it computes it.

Source: Zhao et al. 2023, PyTorch FSDP, https://arxiv.org/abs/2304.11277; `torch.distributed.fsdp.fully_shard` is its second
form. It is applied from outside, to each block that a network repeats and to what is left: models and tasks know nothing of it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard

from dlzoo import sharded
from dlzoo.errors import CheckpointError
from dlzoo.strategies.buffers import broadcast_buffers
from dlzoo.strategies.hooks import without_hooks

__all__ = ["FSDP", "blocks", "networks", "shard"]

log = logging.getLogger("dlzoo")


class FSDP(ModelParallelStrategy):
    """FSDP2 over all devices, on GPUs and, for tests, on several processes of a CPU over gloo.

    Args:
        save_distributed_checkpoint: each device writes its share, into a folder; otherwise the first one writes a single file
            of whole tensors, from which any number of devices, and any other strategy of one process, can go on.
        timeout_seconds: how long a device waits for the others in one exchange.
        process_group_backend: "nccl" or "gloo"; None takes what the device has.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        timeout_seconds: float = 1800.0,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            save_distributed_checkpoint=save_distributed_checkpoint,
            timeout=timedelta(seconds=timeout_seconds),
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: L.Trainer) -> None:
        task = self.lightning_module
        for net in networks(task):
            shard(net, self.device_mesh["data_parallel"])
        task.configure_model = _nothing  # Lightning wants the hook in which others shard their model by hand
        try:
            super().setup(trainer)
        finally:
            del task.configure_model
        self._unfuse()

    def on_validation_start(self) -> None:
        broadcast_buffers(self.lightning_module)

    def on_test_start(self) -> None:
        broadcast_buffers(self.lightning_module)

    @contextmanager
    def whole(self, net: nn.Module) -> Iterator[None]:
        """In it every device has all weights of a network, and may use it as it likes, without the others.

        All of them enter it and leave it together: the weights are gathered once, as a forward pass would.

        Args:
            net: a network of the task.
        """
        parts = [module for module in net.modules() if isinstance(module, FSDPModule)]
        for part in parts:
            part.unshard()
        try:
            with without_hooks(net):
                yield
        finally:
            for part in parts:
                part.reshard()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(self.broadcast(str(checkpoint_path)))
        found = sharded.kind(path)
        if found == "deepspeed":
            raise CheckpointError(
                f"{path.name} is DeepSpeed's, which FSDP can not go on from",
                where=str(path),
                fix="the trainer that wrote it; its weights alone: dlzoo consolidate RUN",
            )
        with sharded.reading(path):
            state = self._load_shares(path) if found else super().load_checkpoint(path, weights_only=True)
        self._unfuse()  # one process may have written it
        return state

    def _unfuse(self) -> None:
        """The kernel over all parameters at once does not know shares (torch has it for Adam on CUDA alone)."""
        groups = [(group, optimizer) for optimizer in self.optimizers for group in optimizer.param_groups if group.get("fused")]
        for group, optimizer in groups:
            if not (self.root_device.type == "cuda" and isinstance(optimizer, torch.optim.Adam)):
                group["fused"] = optimizer.defaults["fused"] = False
        if groups and not groups[0][0]["fused"]:
            log.debug("optimizer.fused is off: %s has no fused kernel for shares", type(groups[0][1]).__name__)

    def _load_shares(self, path: Path) -> dict[str, Any]:
        """Lightning's way of reading such a folder, without the pickles in it."""

        def load(state: dict[str, Any]) -> dict[str, Any]:
            checkpoint.load(state, storage_reader=sharded.fsdp_reader(path), planner=sharded.safe_planner())
            return state

        task = self.lightning_module
        weights = load({"state_dict": get_model_state_dict(task)})
        task.load_state_dict(weights["state_dict"], strict=task.strict_loading)
        for index, optimizer in enumerate(self.optimizers):
            found = load({f"optimizer_{index}": get_optimizer_state_dict(task, optimizer)})
            set_optimizer_state_dict(task, optimizer, optim_state_dict=found[f"optimizer_{index}"])
        return torch.load(path / "meta.pt", map_location="cpu", weights_only=True)


def networks(task: L.LightningModule) -> list[nn.Module]:
    """The parts of a task that learn."""
    return [child for child in task.children() if any(True for _ in child.parameters())]


def shard(net: nn.Module, mesh: torch.distributed.device_mesh.DeviceMesh) -> None:
    """Applies fully_shard to the blocks of a network and to the rest of it, in place; once."""
    if isinstance(net, FSDPModule):
        return
    found = list(blocks(net))
    for block in found:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    log.debug("FSDP2 shards the network and %d blocks of it over %d devices", len(found), mesh.size())


def blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The parts that are gathered one after the other: what stands in a list or a sequence and is made of parts itself."""
    for module in net.children():
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for item in module:
                nested = isinstance(item, nn.Sequential | nn.ModuleList)
                if not nested and any(True for _ in item.children()) and any(True for _ in item.parameters()):
                    yield item
                elif nested:
                    yield from blocks(_Holder(item))
        else:
            yield from blocks(module)


class _Holder(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _nothing() -> None:
    """The network is sharded already."""
