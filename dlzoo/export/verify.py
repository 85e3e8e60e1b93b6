"""Does an exported file compute what the trained network computes? Measured, not assumed."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
        max_rel: max_abs / scale.
        top1: share of the samples for which both name the same class.
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


def verify_onnx(net: nn.Module, path: Path, batches: Sequence[Tensor], *, tolerance: float = 1e-4) -> Report:
    """Runs `net` and the file on the same batches and compares every output.

    Both compute on the CPU: a GPU may round its convolutions to ten bits (TF32) and would be the less exact of the two. `net`
    comes back unchanged, on the device where it was.

    Args:
        net: the network that was exported.
        path: the ONNX file.
        batches: inputs of several batch sizes, best of real data and one of them a single sample.
        tolerance: the bound on the largest difference, as a share of the largest output of the batch.

    Raises:
        NumericalError: the file cannot be run on a batch, an output is not finite, or the difference passes the tolerance.
        ConfigError: onnxruntime is not installed.
        ValueError: there is no batch, or an empty one.
    """
    if not batches or not all(len(batch) for batch in batches):
        raise ValueError(f"batches must hold at least one sample each, got sizes {[len(batch) for batch in batches]}")
    (onnxruntime,) = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings go straight to the terminal
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no parent
        raise _refusal(path, f"onnxruntime cannot load it: {error}") from error
    name = session.get_inputs()[0].name
    differences = []
    for batch in batches:
        images = batch.detach().cpu()
        expected = _reference(net, images)
        try:
            (found,) = session.run(None, {name: images.numpy()})
        except Exception as error:
            raise _refusal(path, f"onnxruntime cannot run it on a batch of {len(batch)}: {error}") from error
        differences.append(_compare(expected, found, path, tolerance))
    return Report(f"onnxruntime {onnxruntime.__version__}", tolerance, tuple(differences))


def _reference(net: nn.Module, images: Tensor) -> np.ndarray:
    """What `net` itself gives, with its tensors lent to the CPU."""
    tensors = {name: tensor.detach().cpu() for name, tensor in (*net.named_parameters(), *net.named_buffers())}
    with inference(net):
        return torch.func.functional_call(net, tensors, (images,)).double().numpy()


def _compare(expected: np.ndarray, found: np.ndarray, path: Path, tolerance: float) -> Difference:
    size = len(expected)
    if expected.shape != found.shape:
        raise _refusal(path, f"on a batch of {size} its output has shape {found.shape}, the network's {expected.shape}")
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
    classes = (size, -1) if expected.ndim < 2 else expected.shape
    agree = expected.reshape(classes).argmax(1) == found.reshape(classes).argmax(1)
    return Difference(size, scale, max_abs, max_rel, float(agree.mean()))


def _refusal(path: Path, reason: str) -> NumericalError:
    return NumericalError(
        f"the exported file does not compute what the trained network does: {reason}",
        where=str(path),
        safe="the trained network and its checkpoint are unchanged",
        fix="do not use the file; export again, or report the model as one that does not export",
    )
