"""How a network computes when it is used, not trained; both the export and its check look at it this way."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

__all__ = ["inference"]


@contextmanager
def inference(net: nn.Module) -> Iterator[None]:
    """`net` in evaluation mode, without gradients and in the precision of its weights; afterwards it is as it was.

    The mode of each module is put back on its own, since a net in training can hold parts that are frozen in evaluation mode.
    An autocast around the call is switched off, so that its casts cannot reach the exported graph or the reference.
    """
    modes = [(module, module.training) for module in net.modules()]
    devices = {"cpu"} | {parameter.device.type for parameter in net.parameters()}
    net.eval()
    try:
        with ExitStack() as stack, torch.inference_mode(False), torch.no_grad():
            for device in devices:
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for module, training in modes:
            module.training = training
