"""Texts' networks as files: the same numbers at any size, and the same text written by onnxruntime alone."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch

from dlzoo.data.tokenizers import BYTES, PATTERN, BytePairs, Characters
from dlzoo.export import play
from dlzoo.export.texts import language_graphs, translation_graphs, write_graph
from dlzoo.models.language.gpt import GPT, GPTSize
from dlzoo.models.language.llama import Llama, LlamaSize
from dlzoo.models.language.transformer import Transformer, TransformerSize
from dlzoo.models.sequence.char_rnn import char_gru, char_lstm, char_rnn
from dlzoo.models.sequence.seq2seq import Seq2Seq, Seq2SeqSize
from dlzoo.nn.reading import reader
from dlzoo.ops.generation import generate
from dlzoo.ops.search import greedy_search

V, CONTEXT = 13, 16
LANGUAGE = {
    "gpt": lambda: GPT(GPTSize(16, 2, 2), V, CONTEXT),
    "llama": lambda: Llama(LlamaSize(16, 2, 4, 2, 24), V, CONTEXT),
    "lstm": lambda: char_lstm(V, 8),
    "gru": lambda: char_gru(V, 8, 1),
    "rnn": lambda: char_rnn(V, 8),
}
TRANSLATORS = {
    "additive": lambda: Seq2Seq(11, V, "additive", "gru", Seq2SeqSize(6, 8, 2)),
    "dot": lambda: Seq2Seq(11, V, "dot", "lstm", Seq2SeqSize(6, 8, 1)),
    "transformer": lambda: Transformer(11, V, TransformerSize(8, 2, 2, 12), "pre"),
}


def made(build) -> torch.nn.Module:
    torch.manual_seed(0)
    net = build().eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in key else 0.0, std=3.0 if "positions" in key else 0.5)
            if key in ("tokens.weight", "norm.bias", "head.bias"):  # no token shall win whatever was read
                parameter.copy_(torch.nn.functional.normalize(parameter, dim=-1) if parameter.ndim == 2 else 0 * parameter)
    return net


def ends(path) -> dict[str, list]:
    graph = onnx.load(path).graph
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}


def some_slow(names, quick: str) -> list:
    """Each is exported twice, which takes seconds: one of them always, the others with the slow tests."""
    return [name if name in quick.split() else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some_slow(LANGUAGE, "gpt gru"))
def test_a_language_model_as_files(name, tmp_path):
    """The whole text, and a step; 200 greedy tokens of onnxruntime are torch's, far past the context."""
    net, letters = made(LANGUAGE[name]), Characters("abcdefghijklm")
    rows = torch.randint(V, (5, 40), generator=torch.Generator().manual_seed(1))
    context = getattr(net, "context", None)
    metadata = {"context": context, "tokenizer": letters.as_dict()}
    graphs = language_graphs(net, rows, context)
    assert [graph.name for graph in graphs] == ["model", "step"]
    for graph in graphs:
        report = write_graph(graph, tmp_path / f"{graph.name}.onnx", metadata)
        assert report.max_rel < 1e-5 and report.top1 == 1.0 and min(batch.scale for batch in report.batches) > 0.1
    assert ends(tmp_path / "model.onnx") == {"tokens": ["batch", "length"], "logits": ["batch", "length", V]}
    found = ends(tmp_path / "step.onnx")
    if context:
        g = 2
        assert found["key_1"] == ["batch", g, "past", 16 // (4 if name == "llama" else 2)] and "next_value_1" in found
    else:
        assert found["h"][1] == found["next_h"][1] == "batch" and ("c" in found) == (name == "lstm")
    model = play.LanguageModel(tmp_path)
    for prompt in ([3], [1, 2, 3, 4], [5] * 30):
        assert list(model.write(prompt, 200)) == generate(reader(net), [prompt], 200)[0]
    (tmp_path / "step.onnx").unlink()
    if context:  # a network that keeps nothing reads its window again
        assert list(play.LanguageModel(tmp_path).write([1, 2], 40)) == generate(reader(net), [[1, 2]], 40)[0]


@pytest.mark.filterwarnings("ignore:.*RNN module weights are not part of single contiguous chunk.*")
@pytest.mark.parametrize("name", some_slow(TRANSLATORS, "dot"))
def test_a_translator_as_files(name, tmp_path):
    net, numbers = made(TRANSLATORS[name]), torch.Generator().manual_seed(1)
    sources = torch.randint(3, 11, (6, 9), generator=numbers)
    for row, length in enumerate((9, 9, 7, 4, 1, 8)):
        sources[row, length:] = 0
    targets = torch.randint(3, V, (6, 6), generator=numbers)
    read, written = Characters("abcdefg "), Characters("abcdefghi ")
    metadata = {"begin": 1, "end": 2, "specials": 3, "source_tokenizer": read.as_dict(), "target_tokenizer": written.as_dict()}
    for graph in translation_graphs(net, sources, targets):
        report = write_graph(graph, tmp_path / f"{graph.name}.onnx", metadata)
        assert report.max_rel < 1e-5
    found = ends(tmp_path / "step.onnx")
    assert found["token"] == ["batch"] and found["logits"] == ["batch", V]
    kept = {"memory_key_0": ["batch", 2, "source", 4]} if name == "transformer" else {"memory": ["batch", "source", 8]}
    assert found | kept == found and not any(f"next_{key}" in found for key in [*kept, "mask"])
    translator = play.Translator(tmp_path)
    for rows in (sources, sources[:1], sources[2:4, :7]):
        first = torch.ones(len(rows), dtype=torch.long)
        theirs = greedy_search(net.step, net.encode(rows), first, 2, 20)
        expected = [row[: int(n)] for row, n in zip(theirs.tokens[:, 0].tolist(), theirs.lengths[:, 0], strict=True)]
        assert translator.write(rows.numpy(), 20) == expected
    given = [*(3 + read.encode(" abc")), 2]
    (said,) = translator.write(np.array([given]), 20)
    assert translator.translate("abc ", 20) == written.decode(token - 3 for token in said if token > 2).strip()


def test_a_draw_follows_its_shares():
    pick = play.drawn(0.5, seed=0)
    logits = np.log(np.array([0.5, 0.3, 0.2])).astype(np.float32)
    shares = np.bincount([pick(logits) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(shares, np.array([0.25, 0.09, 0.04]) / 0.38, atol=0.03)
    assert play.best(logits) == 0


def test_tokens_are_those_of_the_tokenizers():
    letters = Characters("abc\né", unknown=True)
    copied = play.Tokens(letters.as_dict())
    for text in ("abcé\n", "ax"):
        assert copied.encode(text) == letters.encode(text).tolist()
        assert copied.decode(copied.encode(text)) == letters.decode(letters.encode(text))
    text = "The cat sat on the mat; the café's cat sat.\n\n  Then\tit ran 12 miles 12 times. 😀\n"
    pairs = BytePairs.train([text * 3], 300)
    stored = pairs.as_dict() | {"pattern": PATTERN, "bytes": BYTES}
    copied = play.Tokens(json.loads(json.dumps(stored)))
    for other in (text, "a new cat, é 12", "", "\n\n\n  x "):
        assert copied.encode(other) == pairs.encode(other).tolist() and copied.decode(copied.encode(other)) == other


def test_the_example_needs_no_torch(tmp_path):
    """It is a file of its own: nothing of dlzoo, and no torch."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(play))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
