"""Does an exported file compute what the trained network computes? Measured, not assumed."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlzoo.errors import NumericalError
from dlzoo.export.inference import inference
from dlzoo.export.onnx import require

__all__ = ["Difference", "Report", "verify_onnx"]


@dataclass(frozen=True)
class Difference:
    """How far the file is from the network on one batch.

    Args:
        batch_size: samples in the batch.
        scale: the largest absolute output of the network; near 0 the comparison says little.
        max_abs: the largest absolute difference of two outputs.
        max_rel: max_abs / scale; of several outputs, all three are those of the one that differs the most.
        top1: share of the samples, in texts of the places, for which the first output names the same class in both.
    """

    batch_size: int
    scale: float
    max_abs: float
    max_rel: float
    top1: float


@dataclass(frozen=True)
class Report:
    """The measured error of an export: all batches, and the bound they kept.

    Args:
        runtime: what ran the file, with its version.
        tolerance: the bound on max_rel.
        batches: one entry a batch.
    """

    runtime: str
    tolerance: float
    batches: tuple[Difference, ...]

    @property
    def max_abs(self) -> float:
        return max(batch.max_abs for batch in self.batches)

    @property
    def max_rel(self) -> float:
        return max(batch.max_rel for batch in self.batches)

    @property
    def top1(self) -> float:
        """Share of all samples for which both name the same class."""
        samples = sum(batch.batch_size for batch in self.batches)
        return sum(batch.top1 * batch.batch_size for batch in self.batches) / samples

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file beside the export."""
        whole = {"max_abs": self.max_abs, "max_rel": self.max_rel, "top1": self.top1}
        return {
            "runtime": self.runtime,
            "tolerance": self.tolerance,
            **whole,
            "batches": [asdict(batch) for batch in self.batches],
        }


def verify_onnx(
    net: nn.Module,
    path: Path,
    batches: Sequence[Tensor | Sequence[Tensor]],
    *,
    tolerance: float = 1e-4,
    classes: int = 1,
) -> Report:
    """Runs `net` and the file on the same batches and compares every output.

    Both compute on the CPU: a GPU may round its convolutions to ten bits (TF32) and would be the less exact of the two. `net`
    comes back unchanged, on the device where it was.

    Args:
        net: the network that was exported.
        path: the ONNX file.
        batches: inputs of several batch sizes, best of real data and one of them a single sample; a tuple where there are
            several inputs, in the order of the file.
        tolerance: the bound on the largest difference of an output, as a share of its largest value in the batch.
        classes: the dimension of the first output along which classes lie; -1 for the tokens of a text.

    Raises:
        NumericalError: the file cannot be run on a batch, an output is not finite, or the difference passes the tolerance.
        ConfigError: onnxruntime is not installed.
        ValueError: there is no batch, or an empty one.
    """
    given = [[batch] if isinstance(batch, Tensor) else list(batch) for batch in batches]
    if not given or not all(len(batch[0]) for batch in given):
        raise ValueError(f"batches must hold at least one sample each, got sizes {[len(batch[0]) for batch in given]}")
    (onnxruntime,) = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings go straight to the terminal
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no parent
        raise _refusal(path, f"onnxruntime cannot load it: {error}") from error
    names = [put.name for put in session.get_inputs()]
    differences = []
    for batch in given:
        inputs = [tensor.detach().cpu() for tensor in batch]
        expected = _reference(net, inputs)
        try:
            found = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
        except Exception as error:
            raise _refusal(path, f"onnxruntime cannot run it on a batch of {len(inputs[0])}: {error}") from error
        size = len(inputs[0])
        if len(expected) != len(found):
            raise _refusal(path, f"it has {len(found)} outputs, the network {len(expected)}")
        outputs = [_compare(one, other, size, path, tolerance, classes) for one, other in zip(expected, found, strict=True)]
        worst = max(outputs, key=lambda output: output.max_rel)
        differences.append(replace(worst, top1=outputs[0].top1))
    return Report(f"onnxruntime {onnxruntime.__version__}", tolerance, tuple(differences))


def _reference(net: nn.Module, inputs: list[Tensor]) -> list[np.ndarray]:
    """What `net` itself gives, with its tensors lent to the CPU."""
    tensors = {name: tensor.detach().cpu() for name, tensor in (*net.named_parameters(), *net.named_buffers())}
    with inference(net):
        found = torch.func.functional_call(net, tensors, tuple(inputs))
        return [output.double().numpy() for output in ([found] if isinstance(found, Tensor) else found)]


def _compare(expected: np.ndarray, found: np.ndarray, size: int, path: Path, tolerance: float, classes: int) -> Difference:
    if expected.shape != found.shape:
        raise _refusal(path, f"on a batch of {size} its output has shape {found.shape}, the network's {expected.shape}")
    if not expected.size:  # keys and values of no token
        return Difference(size, 0.0, 0.0, 0.0, 1.0)
    found = found.astype(np.float64)  # so that the comparison adds no rounding of its own
    for whose, output in (("the trained network", expected), ("it", found)):
        if bad := np.count_nonzero(~np.isfinite(output)):
            raise _refusal(path, f"on a batch of {size} {whose} gives {bad} of {output.size} outputs that are not finite")
    scale, max_abs = float(np.abs(expected).max()), float(np.abs(expected - found).max())
    max_rel = max_abs / scale if scale else math.inf if max_abs else 0.0
    if max_rel > tolerance:
        raise _refusal(
            path,
            f"on a batch of {size} its outputs differ by up to {max_abs:.3g}, {max_rel:.3g} of the largest output "
            f"({scale:.3g}); the tolerance is {tolerance:g}",
        )
    shape = (size, -1) if expected.ndim < 2 else expected.shape
    agree = expected.reshape(shape).argmax(classes) == found.reshape(shape).argmax(classes)
    return Difference(size, scale, max_abs, max_rel, float(agree.mean()))


def _refusal(path: Path, reason: str) -> NumericalError:
    return NumericalError(
        f"the exported file does not compute what the trained network does: {reason}",
        where=str(path),
        safe="the trained network and its checkpoint are unchanged",
        fix="do not use the file; export again, or report the model as one that does not export",
    )
