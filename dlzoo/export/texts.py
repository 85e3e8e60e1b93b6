"""Networks of texts as graphs: what they read at once, and one step with what they remember going in and coming out.

A language model gives `model` (a whole text) and, if it keeps something of what it read, `step`; a translator gives `encoder`
and `step`. What is kept is a list of named tensors. An output `next_x` of a step is the input `x` of the following one; inputs
without such an output stay as they are for the whole text.

Shapes: B batch, T tokens, S tokens of the source or of the past, V vocabulary, N layers, g heads, d width of a head.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlzoo.export.inference import inference
from dlzoo.export.onnx import export_graph
from dlzoo.export.verify import Report, verify_onnx

__all__ = ["Graph", "language_graphs", "translation_graphs", "write_graph"]

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Graph:
    """One file.

    Args:
        name: of the file.
        module: as many tensors in as `inputs` gives, as many out as `outputs` names.
        inputs: real ones, by name, at given sizes.
        outputs: their names.
        sizes: those that stay free, with the values that the exporter sees.
        checked: further values of them, at which the file is compared with the module.
        empty: which of them may be 0.
    """

    name: str
    module: nn.Module
    inputs: Callable[[Sizes], dict[str, Tensor]]
    outputs: Sequence[str]
    sizes: Sizes
    checked: Sequence[Sizes]
    empty: Sequence[str] = ()

    @property
    def free(self) -> dict[str, dict[int, str]]:
        """Of each input the dimensions that stay free: those that follow a size, as is seen by changing it."""
        base = self.inputs(self.sizes)
        found: dict[str, dict[int, str]] = {name: {} for name in base}
        for word, size in self.sizes.items():
            for name, other in self.inputs({**self.sizes, word: size + 1}).items():
                moved = [axis for axis, length in enumerate(other.shape) if length != base[name].shape[axis]]
                found[name] |= dict.fromkeys(moved, word)
        return {name: dict(sorted(axes.items())) for name, axes in found.items()}


def write_graph(graph: Graph, path: Path, metadata: Mapping[str, Any]) -> Report:
    """Writes a graph, and compares the file with the module at other sizes than the exporter saw.

    Raises:
        ConfigError, StorageError: as `export_graph`.
        NumericalError: the file computes something else.
    """
    with inference(graph.module):
        examples = graph.inputs(graph.sizes)
        free = graph.free
        batches = [tuple(graph.inputs(sizes).values()) for sizes in graph.checked]
    export_graph(graph.module, examples, graph.outputs, path, metadata=metadata, free=free, empty=graph.empty)
    return verify_onnx(graph.module, path, batches, classes=-1)


# --- language models


def language_graphs(net: nn.Module, rows: Tensor, context: int | None = None) -> list[Graph]:
    """`model`, and `step` where the network keeps keys and values or a state.

    Args:
        net: a language model, (B, T) -> (B, T, V).
        rows: texts to try it on, (N, L), at least 3 of 8 tokens.
        context: tokens that it can see at once, at most L of which are tried; None for no end.
    """
    longest = min(rows.shape[1], context or rows.shape[1])
    sizes = {"batch": 2, "length": 5}
    checked = [{"batch": b, "length": t} for b, t in ((1, 1), (1, longest), (3, 7), (len(rows), max(longest // 2, 1)))]
    whole = Graph("model", Whole(net), lambda at: {"tokens": rows[: at["batch"], : at["length"]]}, ["logits"], sizes, checked)
    if hasattr(net, "with_state"):
        step: CacheStep | StateStep = StateStep(net)
    elif "cache" in inspect.signature(net.forward).parameters:
        step = CacheStep(net)
    else:
        return [whole]

    def inputs(at: Sizes) -> dict[str, Tensor]:
        read = rows[: at["batch"]]
        kept = step.after(read[:, : at["past"]]) if at["past"] else step.start(read)
        return {"tokens": read[:, at["past"] : at["past"] + at["length"]], **dict(zip(step.names, kept, strict=True))}

    half = longest // 2
    tried = ((1, 1, 0), (1, longest, 0), (3, 1, longest - 1), (2, 4, 1), (len(rows), half, half))
    checked = [{"batch": b, "length": t, "past": s} for b, t, s in tried]
    outputs = ["logits", *(f"next_{name}" for name in step.names)]
    return [whole, Graph("step", step, inputs, outputs, sizes | {"past": 3}, checked, ("past",))]


class Whole(nn.Module):
    """A language model without its other arguments."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class StateStep(nn.Module):
    """tokens (B, T) and a state, parts of (N, B, H) -> logits (B, T, V) and the state after them."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.names = ["h", "c"][: len(net.zeros(1))]

    def start(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.net.zeros(len(rows))

    def after(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.net.with_state(rows)[1]

    def forward(self, tokens: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, state = self.net.with_state(tokens, state)
        return logits, *state


class Past:
    """Keys and values as a graph has them: joined to the new ones, for room that is filled has no place in it.

    Args:
        kept: keys and values of each layer in turn, (B, g, S, d); none of them at the beginning.
    """

    def __init__(self, kept: Sequence[Tensor]) -> None:
        self.kept = list(kept)
        self.used = kept[0].shape[2] if kept else 0
        self.new: list[Tensor] = []

    def begin(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        places = self.used + torch.arange(count, device=device)
        return places, torch.arange(self.used + count, device=device) <= places[:, None]

    def layer(self, index: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def append(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            if self.kept:
                key, value = torch.cat([self.kept[2 * index], key], 2), torch.cat([self.kept[2 * index + 1], value], 2)
            self.new += [key, value]
            return key, value

        return append


class CacheStep(nn.Module):
    """tokens (B, T), keys and values of each layer, (B, g, S, d) -> logits (B, T, V), and both with the new ones."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.names = [f"{what}_{layer}" for layer in range(len(net.blocks)) for what in ("key", "value")]

    def start(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(part[:, :, :0] for part in self.after(rows[:, :1]))

    def after(self, rows: Tensor) -> tuple[Tensor, ...]:
        past = Past(())
        self.net.features(rows, past)
        return tuple(past.new)

    def forward(self, tokens: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        past = Past(kept)
        return self.net(tokens, past), *past.new


# --- translators


def translation_graphs(net: Any, sources: Tensor, targets: Tensor) -> list[Graph]:
    """`encoder`, and `step` from one token to the logits of the next.

    Args:
        net: has `encode(source)` and `step(token, state)`, and its state is a named tuple of tensors with the batch first.
        sources: sentences to try it on, (N, S), padded; at least 3 of 7 tokens.
        targets: what was written so far, (N, T), at least 5 tokens.
    """
    with torch.no_grad():
        state = net.encode(sources[:2])
        after = net.step(targets[:2, 0], state)[1]
    names, changed = _names(state), _changed(state, after)
    encoder, step = Encode(net), TranslationStep(net, state, changed)

    def inputs(at: Sizes) -> dict[str, Tensor]:
        kept = net.encode(sources[: at["batch"], : at["source"]])
        for place in range(at["past"]):
            _, kept = net.step(targets[: at["batch"], place], kept)
        return {"token": targets[: at["batch"], at["past"]], **dict(zip(names, _tensors(kept), strict=True))}

    longest = sources.shape[1]
    tried = [{"batch": b, "source": s} for b, s in ((1, 1), (3, 7), (1, longest), (len(sources), longest))]
    pasts = (0, 3, 1, 4)
    return [
        Graph(
            "encoder",
            encoder,
            lambda at: {"source": sources[: at["batch"], : at["source"]]},
            names,
            {"batch": 2, "source": 5},
            tried,
        ),
        Graph(
            "step",
            step,
            inputs,
            ["logits", *(f"next_{name}" for name in changed)],
            {"batch": 2, "source": 5, "past": 2},
            [at | {"past": past} for at, past in zip(tried, pasts, strict=True)],
            ("past",),
        ),
    ]


class Encode(nn.Module):
    """source (B, S) -> the tensors of the state before the first token."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self.net.encode(source)))


class TranslationStep(nn.Module):
    """token (B,) and the tensors of a state -> logits (B, V) and those tensors that a step changes.

    Args:
        net: the translator.
        like: a state of it, for its form.
        changed: the names of the tensors that a step changes.
    """

    def __init__(self, net: Any, like: Any, changed: Sequence[str]) -> None:
        super().__init__()
        self.net, self.changed, self.form = net, set(changed), _form(like)
        self.names = _names(like)

    def forward(self, token: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, after = self.net.step(token, _rebuilt(self.form, iter(state)))
        new = zip(self.names, _tensors(after), strict=True)
        return logits, *(tensor for name, tensor in new if name in self.changed)


def _tensors(state: Any) -> list[Tensor]:
    """The tensors of a state, in order: of a tensor, or of tuples of them in any depth."""
    return [state] if isinstance(state, Tensor) else [tensor for part in state for tensor in _tensors(part)]


def _names(state: Any) -> list[str]:
    """A name for each: the field's, and in it the layer, and whether it is keys or values."""
    names = []
    for field in state._fields:
        value = getattr(state, field)
        if isinstance(value, Tensor):
            names.append(field)
        else:
            names += [f"{field}_{what}_{layer}" for layer in range(len(value)) for what in ("key", "value")]
    return names


def _changed(before: Any, after: Any) -> list[str]:
    """Which tensors a step changes; the others are the same objects."""
    pairs = zip(_names(before), _tensors(before), _tensors(after), strict=True)
    return [name for name, one, other in pairs if one is not other]


def _form(state: Any) -> Any:
    """A state without its tensors, which a module could not hold without keeping them."""
    return None if isinstance(state, Tensor) else (type(state), [_form(part) for part in state])


def _rebuilt(form: Any, tensors: Any) -> Any:
    if form is None:
        return next(tensors)
    kind, parts = form
    made = [_rebuilt(part, tensors) for part in parts]
    return kind(*made) if hasattr(kind, "_fields") else kind(made)
