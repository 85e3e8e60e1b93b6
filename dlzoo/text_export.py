"""The network of a run of texts as ONNX files that are compared with torch, and that write what torch writes."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo import rundir, zoo
from dlzoo.config import run_config
from dlzoo.errors import DataError, NumericalError
from dlzoo.rundir import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["export_language_model", "export_translator"]

WRITTEN = 200  # tokens that both write
PROMPTS, PROMPT = 3, 8  # texts that they go on from, and tokens of each
ROWS, LENGTH = 16, 64  # texts that the files are compared on, and tokens of each, at most


def export_language_model(run: Run, net: "nn.Module", overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """`model.onnx`, a whole text, and `step.onnx`, which remembers: see `dlzoo.export.texts`.

    Args:
        run: of a language model.
        net: its network.
        overrides: such as data_dir=PATH.

    Returns:
        model.onnx, and what model.onnx.json beside it says.

    Raises:
        NumericalError: a file computes something else, or onnxruntime writes another text with it than torch does.
        ConfigError: onnx or onnxruntime is not installed.
    """
    from dlzoo.export.play import LanguageModel
    from dlzoo.export.texts import language_graphs
    from dlzoo.nn.reading import reader
    from dlzoo.ops.generation import generate

    how = run.summary["preprocess"]
    rows, kind = _texts(run, overrides, lambda batch: batch[0], how["vocab_size"])
    context = reader(net, how["context"]).context
    metadata = {"kind": "language_model", "context": context, "tokenizer": _tokenizer(run, how["tokenizer"])}
    prompts = rows[:PROMPTS, :PROMPT].tolist()

    def same(folder: Path) -> int:
        model = LanguageModel(folder)
        expected = [generate(reader(net, how["context"]), [prompt], WRITTEN)[0] for prompt in prompts]
        return _equal([list(model.write(prompt, WRITTEN)) for prompt in prompts], expected, folder)

    return _write(run, language_graphs(net, rows, context), metadata, same, kind)


def export_translator(run: Run, net: "nn.Module", overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """`encoder.onnx` and `step.onnx`: see `dlzoo.export.texts`. Arguments and errors are those of `export_language_model`.

    Returns:
        encoder.onnx, and what encoder.onnx.json beside it says.
    """
    import torch

    from dlzoo.data.sentences import BEGIN, END, PADDING, SPECIALS
    from dlzoo.export.play import Translator
    from dlzoo.export.texts import translation_graphs
    from dlzoo.ops.search import greedy_search

    how, data = run.summary["preprocess"], run.config["data"]
    sources, kind = _texts(run, overrides, lambda batch: batch.source, data["source_vocab_size"])
    targets, _ = _texts(run, overrides, lambda batch: batch.target, data["target_vocab_size"])
    specials = {"padding": PADDING, "begin": BEGIN, "end": END, "specials": SPECIALS}
    tokenizers = {name: _tokenizer(run, how[name]) for name in ("source_tokenizer", "target_tokenizer")}
    metadata = {"kind": "translator", "source": how["source"], "target": how["target"], **specials, **tokenizers}

    def same(folder: Path) -> int:
        first = torch.full((len(sources),), BEGIN)
        with torch.inference_mode():
            found = greedy_search(net.step, net.encode(sources), first, END, WRITTEN)  # type: ignore[operator]
        lengths = found.lengths[:, 0].tolist()
        expected = [row[:length] for row, length in zip(found.tokens[:, 0].tolist(), lengths, strict=True)]
        return _equal(Translator(folder).write(sources.numpy(), WRITTEN), expected, folder)

    return _write(run, translation_graphs(net, sources, targets), metadata, same, kind)


def _write(run: Run, graphs: Any, metadata: dict[str, Any], same: Any, kind: str) -> tuple[Path, dict[str, Any]]:
    """All files, or none."""
    from dlzoo.export.texts import write_graph

    common = {"model": run.summary["model"], "preprocess": run.summary["preprocess"]}
    folder = run.dir / "export"
    temporary = folder / f".texts-{os.getpid()}"
    temporary.mkdir(parents=True)
    try:
        reports = {graph.name: write_graph(graph, temporary / f"{graph.name}.onnx", common | metadata) for graph in graphs}
        written = same(temporary)
        for name in reports:
            os.replace(temporary / f"{name}.onnx", folder / f"{name}.onnx")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    path = folder / f"{graphs[0].name}.onnx"
    sidecar = {
        "files": {f"{name}.onnx": report.as_dict() for name, report in reports.items()},
        "inputs": {f"{graph.name}.onnx": graph.free for graph in graphs},
        "texts": kind,
        "same_tokens": written,
        **common,
        **{key: value for key, value in metadata.items() if not key.endswith("tokenizer")},
    }
    rundir.write_json(path.with_name(f"{path.name}.json"), sidecar)
    return path, sidecar


def _equal(found: list[list[int]], expected: list[list[int]], folder: Path) -> int:
    """How many tokens both have written; all of them are the same."""
    for row, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours != theirs:
            at = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
            raise NumericalError(
                f"onnxruntime writes another text than torch, from token {at} of text {row} on",
                where=str(folder.parent),
                safe="the trained network and its checkpoint are unchanged; no file was left",
                fix="export again, with --last for other weights, or report the model as one that does not export",
            )
    return sum(map(len, expected))


def _texts(run: Run, overrides: list[str], part: Any, vocab_size: int) -> tuple["Tensor", str]:
    """Rows of tokens, (ROWS, T): of the test split, or at random where the data set is not at hand."""
    import torch

    try:
        data = zoo.build(run_config(run, overrides)["data"])
        data.prepare_data()
        data.setup("test")
        rows = part(next(iter(data.test_dataloader())))
        kind = "texts of the test split"
    except DataError as error:
        rows = torch.randint(vocab_size, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
        kind = f"tokens at random, for the data is not here: {error.what}"
    rows = rows.cpu()[:ROWS, :LENGTH]
    return rows.repeat(-(-PROMPTS // len(rows)), -(-PROMPT // rows.shape[1])), kind


def _tokenizer(run: Run, name: str) -> dict[str, Any]:
    """The run's tokenizer, and for byte pairs what else is needed to split a text without dlzoo."""
    from dlzoo.data.tokenizers import BYTES, PATTERN, BytePairs, load_tokenizer

    found = load_tokenizer(run.dir / name)
    more = {"pattern": PATTERN, "bytes": BYTES} if isinstance(found, BytePairs) else {}
    return json.loads(json.dumps(found.as_dict() | more))
