"""The running statistics of a network on several devices: each updates its own, and the first device's are the ones that count.

DistributedDataParallel sees to that itself, before every forward pass. FSDP2 and ZeRO leave buffers alone, so that the devices
would measure different networks in validation, and only one of them would be saved.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

__all__ = ["broadcast_buffers"]


def broadcast_buffers(task: nn.Module) -> None:
    """Gives every rank the buffers that rank 0's networks have; the counts of metrics stay each rank's own."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    for child in task.children():
        if not any(True for _ in child.parameters()):  # a metric learns nothing
            continue
        for buffer in child.buffers():
            value: Any = buffer.to_local() if isinstance(buffer, DTensor) else buffer
            torch.distributed.broadcast(value, src=0)
