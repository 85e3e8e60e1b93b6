"""A trained network -> one ONNX file that takes any batch size, and where it is asked for any length.

The file stands alone: weights inside, classes and preprocessing in its metadata, and nothing of the machine that wrote it.
The same network gives the same bytes.
"""

import importlib
import inspect
import io
import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError, StorageError
from dlzoo.export.inference import inference

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto

__all__ = ["export_graph", "export_onnx", "require"]

SINGLE_FILE_LIMIT = 2**31  # bytes; a protobuf message cannot be longer


def export_onnx(
    net: nn.Module,
    example: Tensor,
    path: Path,
    *,
    metadata: Mapping[str, Any],
    free: Mapping[int, str] = MappingProxyType({}),
    input_name: str = "images",
    output_name: str = "logits",
) -> None:
    """Writes a network of one input and one output, as it computes in evaluation mode, to `path`; `net` comes back unchanged.

    Args:
        net: one tensor in, one tensor out; its first dimension is the batch.
        example: an input of the shape and dtype the file shall take; the batch size stays free.
        path: the file, written in one go. Check it (verify_onnx) before it takes the name that people look for.
        metadata: what a user of the file needs, by name. A string is stored as it is, any other value as JSON.
        free: further dimensions of the input that stay free, each with a name for it, such as {2: "samples"}.
        input_name: name of the input in the file.
        output_name: name of the output in the file.

    Shape:
        example: (1, ...), for images (1, C, H, W).

    Raises:
        as `export_graph`.
    """
    # Two samples: the tracer takes a size of one for a constant.
    pair = torch.cat([example.detach()[:1]] * 2)
    export_graph(net, {input_name: pair}, [output_name], path, metadata=metadata, free={input_name: {0: "batch", **free}})


def export_graph(
    net: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    metadata: Mapping[str, Any],
    free: Mapping[str, Mapping[int, str]],
    empty: Collection[str] = (),
) -> None:
    """Writes a network of several inputs and outputs, as it computes in evaluation mode; `net` comes back unchanged.

    Args:
        net: as many tensors in, in this order, and as many out.
        examples: the inputs by name, of the shapes and types that the file shall take. A size that stays free is two at least.
        outputs: the names of the outputs.
        path: the file, written in one go. Check it (verify_onnx) before it takes the name that people look for.
        metadata: what a user of the file needs, by name. A string is stored as it is, any other value as JSON.
        free: of each input the dimensions that stay free, with a name for each; one name is one size.
        empty: those names whose size may be 0.

    Raises:
        ConfigError: a package is missing, or the network cannot be written as a graph or in a single file.
        StorageError: `path` cannot be written.
        ValueError: a value of `metadata` is not JSON.
    """
    texts = {name: _text(name, value) for name, value in metadata.items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))
    if size >= SINGLE_FILE_LIMIT:
        raise ConfigError(
            f"this network has {size / 2**30:.1f} GiB of weights; a single ONNX file holds less than 2 GiB",
            fix="export it in half precision, or take a smaller model",
        )
    with _quiet():
        onnx, _ = require("onnx", "onnxscript")
        model = _trace(net, examples, outputs, free, empty)
        _strip(model)
        for name, text in texts.items():
            model.metadata_props.add(key=name, value=text)
        content = model.SerializeToString(deterministic=True)
        onnx.checker.check_model(content, full_check=True)
    try:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"the ONNX file cannot be written: {error.strerror or error}", where=str(path)) from error


def require(*packages: str) -> list[ModuleType]:
    """The packages by name, imported; they are an extra of dlzoo, so a missing one is told to the user."""
    try:
        return [importlib.import_module(name) for name in packages]
    except ImportError as error:
        raise ConfigError(
            f"the export to ONNX needs {' and '.join(packages)} ({error})", fix="pip install 'dlzoo[onnx]'"
        ) from error


def _trace(
    net: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
    empty: Collection[str],
) -> "ModelProto":
    """The graph of `net`, as torch's exporter makes it."""
    name = type(net).__name__
    device = next((parameter.device for parameter in net.parameters()), None)
    given = tuple(example.detach() if device is None else example.detach().to(device) for example in examples.values())
    words = dict.fromkeys(word for axes in free.values() for word in axes.values())
    sizes = {word: torch.export.Dim(word, min=0) if word in empty else torch.export.Dim(word) for word in words}
    with inference(net):
        found = net(*given)
        if len(outputs) == 1 and not isinstance(found, Tensor):
            raise ConfigError(f"{name} returns {type(found).__name__}; only a network that returns one tensor is exported")
        try:
            program = torch.onnx.export(
                net,
                given,
                dynamo=True,
                dynamic_shapes=_as_given(
                    net, [{axis: sizes[word] for axis, word in free.get(key, {}).items()} for key in examples]
                ),
                input_names=list(examples),
                output_names=list(outputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ConfigError(
                f"{name} cannot be exported to ONNX: {_reason(error)}",
                fix="forward may not branch on the values of tensors",
            ) from error
    model = program.model_proto
    for put in model.graph.input:
        for axis, word in free.get(put.name, {}).items():
            if not put.type.tensor_type.shape.dim[axis].dim_param:  # the exporter fixes the size in silence
                size = "batch size" if axis == 0 else f"number of {word}"
                raise ConfigError(
                    f"{name} cannot be exported to ONNX: its forward works for a single {size}",
                    fix=f"take the {size} from x.shape[{axis}], with no number or buffer of that size in the model",
                )
    for put in model.graph.output:
        for size in put.type.tensor_type.shape.dim:
            parts = size.dim_param.split(" + ")
            if set(parts) <= sizes.keys():  # the exporter writes a sum in either order
                size.dim_param = " + ".join(sorted(parts))
    return model


def _as_given(net: nn.Module, shapes: list[Any]) -> tuple[Any, ...]:
    """One entry an argument of `forward`; those that *args takes are one argument to the exporter."""
    kinds = [parameter.kind for parameter in inspect.signature(net.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    alone = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return *shapes[:alone], tuple(shapes[alone:])


def _strip(model: "ModelProto") -> None:
    """Drops what the exporter leaves in the file: source lines with the paths of this machine, and shapes within the graph.

    Those shapes are stale for recurrent layers, and every reader infers them anyway.
    """
    del model.metadata_props[:]
    for part in (model.graph, *model.functions):
        _strip_part(part)
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def _strip_part(part: "GraphProto | FunctionProto") -> None:
    del part.value_info[:], part.metadata_props[:]
    for node in part.node:
        del node.metadata_props[:]
        for attribute in node.attribute:  # the bodies of If and Loop
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip_part(body)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's prints, log lines and warnings kept off the screen, and harmless where warnings are errors."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # not logger by logger: torch gives levels of their own to dozens
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata[{name!r}] must be a string or JSON: {error}") from error


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first; the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
