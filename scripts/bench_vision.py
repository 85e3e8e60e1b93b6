"""Networks for images at equal settings beside torchvision's and timm's, and beside torch's defaults: G6, G7, G13 of bench.py.

Batch 8 at 224 pixels. A network's contenders take turns with one another, and G6 and G7 share one measurement of it.
"""

import contextlib
import functools
import gc
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_timing import SECONDS, Row, faster, take_turns

# ours -> torchvision's, timm's
NETWORKS = {
    "resnet18": ("resnet18", "resnet18"),
    "resnet50": ("resnet50", "resnet50"),
    "densenet121": ("densenet121", "densenet121"),
    "efficientnet_b0": ("efficientnet_b0", "efficientnet_b0"),
    "mobilenet_v2": ("mobilenet_v2", "mobilenetv2_100"),
    "vgg11": ("vgg11", "vgg11"),
    "vit_tiny": (None, "vit_tiny_patch16_224"),  # torchvision has none of that size
    "convnext_tiny": ("convnext_tiny", "convnext_tiny"),
}
SETTINGS = {"fp32": "fp32", "bf16": "bf16 and channels-last"}
PASSES = {"forward": "forward", "training": "forward and backward"}
BATCH, SIDE = 8, 224

# cpu_fast beside torchvision as it comes: at least so many times faster, forward and in training
BOUNDS = {"resnet18": (3.5, 2.8), "resnet50": (2.9, 2.5), "densenet121": (2.4, 2.2), "efficientnet_b0": (1.6, 1.4)}


def goal_6(repeats: int) -> Iterator[Row]:
    """Every network of ours at least as fast as the better of the two libraries, and in no more memory."""
    for name in NETWORKS:
        seconds, peaks = _seconds(name, repeats), _peaks(name)
        for setting, words in SETTINGS.items():
            for direction, both in PASSES.items():
                ours, peer = _best(seconds, setting, direction)
                yield faster("G6", f"{name}, {both}, {words}", ours, peer, SECONDS, ">= 0.97")
            ours, peer = _best(peaks, setting)
            yield Row("G6", f"{name}, most memory in a step, {words}", ours, peer, "MB", ours / peer, "<= 1")


def goal_7(repeats: int) -> Iterator[Row]:
    """trainer=cpu_fast, that is bf16 and channels-last, beside torchvision's networks by default, in fp32."""
    seconds = take_turns({dtype: _product(dtype) for dtype in ("float32", "bfloat16")}, repeats)
    what = "a product of two 2048x2048 matrices, bf16 beside fp32 (5.9 where the bounds come from)"
    yield faster("G7", what, seconds["bfloat16"], seconds["float32"], SECONDS)
    for name, bounds in BOUNDS.items():
        seconds = _seconds(name, repeats)
        for direction, bound in zip(PASSES, bounds, strict=True):
            ours, peer = seconds["ours", "bf16", direction], seconds["torchvision", "fp32", direction]
            yield faster("G7", f"{name}, {PASSES[direction]}, as cpu_fast", ours, peer, SECONDS, f">= {bound}")


def goal_13(repeats: int) -> Iterator[Row]:
    """An exported ResNet-18 on onnxruntime beside the network itself, one image at a time."""
    import numpy as np
    import onnxruntime
    import torch

    import dlzoo
    from dlzoo.export.onnx import export_onnx

    torch.set_num_threads(1)
    net = dlzoo.create_model("resnet18").eval()
    image = torch.randn(1, 3, SIDE, SIDE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        export_onnx(net, image, path, metadata={})
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (put.name for put in session.get_inputs())
    given = {name: image.numpy()}

    def eager() -> None:
        with torch.inference_mode():
            for _ in range(10):
                net(image)

    def exported() -> None:
        for _ in range(10):
            session.run(None, given)

    with torch.inference_mode():
        expected = net(image).numpy()
    assert np.abs(session.run(None, given)[0] - expected).max() <= 1e-4 * np.abs(expected).max()
    seconds = take_turns({"eager": eager, "exported": exported}, 2 * repeats + 1)
    what = "ten images through ResNet-18, ONNX in fp32; beside the network in torch"  # int8 is no part of it yet
    yield faster("G13", what, seconds["exported"], seconds["eager"], SECONDS, ">= 1.9")


def _product(dtype: str) -> Callable[[], None]:
    """What the processor's units for a type are worth: without those for bf16, nothing that uses it can be much faster."""
    import torch

    torch.set_num_threads(1)
    matrix = torch.randn(2048, 2048, dtype=getattr(torch, dtype))

    def run() -> None:
        matrix @ matrix

    return run


def _best(figures: dict[tuple[str, ...], float], *case: str) -> tuple[float, float]:
    """Ours, and the better one of the libraries'."""
    return figures["ours", *case], min(value for key, value in figures.items() if key[1:] == case and key[0] != "ours")


@functools.cache
def _seconds(name: str, repeats: int) -> dict[tuple[str, ...], float]:
    """(whose, setting, direction) -> median processor seconds."""
    import torch

    torch.set_num_threads(1)
    contenders = {}
    for setting in SETTINGS:
        for whose, net in _networks(name, setting).items():
            for direction in PASSES:
                contenders[whose, setting, direction] = _pass(net, setting, direction, BATCH)
    seconds = take_turns(contenders, repeats)
    gc.collect()
    return seconds


@functools.cache
def _peaks(name: str) -> dict[tuple[str, ...], float]:
    """(whose, setting) -> the most megabytes that a training step holds besides the weights, at a quarter of the batch."""
    peaks = {}
    for setting in SETTINGS:
        for whose, net in _networks(name, setting).items():
            peaks[whose, setting] = _peak(_pass(net, setting, "training", BATCH // 4)) / 1e6
    return peaks


def _peak(step: Callable[[], None]) -> int:
    """The most bytes that torch had allocated at one time since the step began."""
    import torch

    step()  # what is made once and kept
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as watched:
        step()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _networks(name: str, setting: str) -> dict[str, Any]:
    """Ours and the libraries' of the same name, nothing dropped at random."""
    import timm
    import torch
    import torchvision

    import dlzoo

    theirs, timms = NETWORKS[name]
    nets = {"ours": dlzoo.create_model(name), "timm": timm.create_model(timms)}
    if theirs:
        nets["torchvision"] = torchvision.models.get_model(theirs)
    for net in nets.values():
        if setting == "bf16":
            net.to(memory_format=torch.channels_last)
        for module in net.modules():
            if "Drop" in type(module).__name__ or "StochasticDepth" in type(module).__name__:
                for word in ("p", "probability", "drop_prob"):
                    if hasattr(module, word):
                        setattr(module, word, 0.0)
    return nets


def _pass(net: Any, setting: str, direction: str, batch: int) -> Callable[[], None]:
    """One pass over one batch; the gradients are given back afterwards."""
    import torch
    import torch.nn.functional as F

    images, labels = torch.randn(batch, 3, SIDE, SIDE), torch.arange(batch)
    if setting == "bf16":
        images = images.to(memory_format=torch.channels_last)
    training = direction == "training"

    def run() -> None:
        net.train(training)
        with torch.set_grad_enabled(training):
            with torch.autocast("cpu", torch.bfloat16, enabled=setting == "bf16"):
                logits = net(images)
            if training:
                F.cross_entropy(logits.float(), labels).backward()
                net.zero_grad()

    return run
