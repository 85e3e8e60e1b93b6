"""Language models, recurrent networks and attention beside what one would run instead: G1, G3, G15 to G17 of bench.py.

The peers are those of bench_peers.py, or torch's own. All contenders of a goal do
the same work: the same sizes, tokens and passes; where they share weights, their answers are compared first.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench_peers import again_and_again, bert, nano_gpt, their_greedy, transformers_gpt
from bench_timing import SECONDS, Row, faster, take_turns

VOCABULARY = 65  # characters of tiny Shakespeare
STEPS = 10  # training steps that are timed at once


def goal_1(repeats: int, compiled: bool = False) -> Iterator[Row]:
    """A training step of gpt_char as `shakespeare_gpt trainer=cpu_fast` makes it, beside nanoGPT's of its README."""
    import torch
    import torch.nn.functional as F

    from dlzoo.models.language.gpt import gpt_char

    torch.set_num_threads(1)
    text = torch.randint(VOCABULARY, (1_000_000,))
    batch, context = 12, 64

    def windows() -> tuple[Any, Any]:
        starts = torch.randint(len(text) - context, (batch,)).tolist()
        return torch.stack([text[i : i + context] for i in starts]), torch.stack(
            [text[i + 1 : i + 1 + context] for i in starts]
        )

    def training(net: Any, optimizer: Any, bf16: bool) -> Callable[[], None]:
        def run() -> None:
            for _ in range(STEPS):
                x, y = windows()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    logits = net(x)
                F.cross_entropy(logits.float().flatten(0, 1), y.flatten()).backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

        return run

    def adamw(net: Any, **options: Any) -> Any:
        return torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, **options)

    theirs = nano_gpt((4, 4, 128), VOCABULARY, context)
    contenders = {"nanoGPT": training(theirs, adamw(theirs), bf16=False)}  # its fused AdamW is for CUDA alone
    for name in ("eager", "compiled") if compiled else ("eager",):
        ours = gpt_char()
        assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
        optimizer = adamw(ours, fused=True)
        contenders[name] = training(torch.compile(ours) if name == "compiled" else ours, optimizer, bf16=True)
    seconds = take_turns(contenders, repeats)
    for name in contenders.keys() - {"nanoGPT"}:
        what = f"{STEPS} training steps of gpt_char, bf16, {name}; beside nanoGPT's, eager in fp32"
        yield faster("G1", what, seconds[name], seconds["nanoGPT"], SECONDS, ">= 1.8" if name == "eager" else ">= 2.2")


def goal_3(repeats: int) -> Iterator[Row]:
    """Greedy generation with a cache, beside the whole window again for each token, and beside `generate` of transformers."""
    import torch

    from dlzoo.models.language.gpt import GPT, GPTSize
    from dlzoo.nn.reading import reader
    from dlzoo.ops.generation import generate

    torch.set_num_threads(1)
    context, prompt, count = 512, 8, 500
    # biases, as the model of transformers has them; then one set of weights serves all three
    ours = GPT(GPTSize(128, 4, 4), VOCABULARY, context).eval()
    with torch.no_grad():
        ours.positions.weight.normal_(std=0.5)  # so that the text goes on and on
    theirs, nano = transformers_gpt(ours, context), nano_gpt((4, 4, 128), VOCABULARY, context, ours)
    for batch in (1, 8):
        tokens = torch.randint(VOCABULARY, (batch, prompt), generator=torch.Generator().manual_seed(0))
        found: dict[str, Any] = {}

        def with_cache(tokens: Any = tokens, found: Any = found) -> None:
            found["ours"] = torch.tensor(generate(reader(ours), tokens.tolist(), count))

        def without(tokens: Any = tokens, found: Any = found) -> None:
            found["nanoGPT"] = again_and_again(nano, tokens, count, context)

        def transformers(tokens: Any = tokens, found: Any = found) -> None:
            found["transformers"] = their_greedy(theirs, tokens, count)

        started = time.process_time()
        without()  # half a minute: once is enough
        slow = time.process_time() - started
        seconds = take_turns({"ours": with_cache, "transformers": transformers}, repeats)
        assert torch.equal(found["ours"], found["nanoGPT"]) and torch.equal(found["ours"], found["transformers"])
        speed = {name: batch * count / each for name, each in (seconds | {"nanoGPT": slow}).items()}
        what = f"{count} greedy tokens, 4 layers of 128, batch {batch}; beside"
        yield faster("G3", f"{what} nanoGPT's way, no cache", speed["ours"], speed["nanoGPT"], "tok/s", ">= 10")
        yield faster("G3", f"{what} transformers' cache", speed["ours"], speed["transformers"], "tok/s", ">= 3")
    yield from _gpt2(repeats)


def _gpt2(repeats: int) -> Iterator[Row]:
    """GPT-2 with 124 M parameters, weights in bf16 beside transformers' as they come, 16 tokens and 32 more."""
    import torch

    from dlzoo.models.language.gpt import gpt2
    from dlzoo.nn.reading import reader
    from dlzoo.ops.generation import generate

    ours = gpt2().eval()
    theirs = transformers_gpt(ours, 1024)
    tokens = torch.randint(50_257, (1, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.tensor(generate(reader(ours), tokens.tolist(), 8)), their_greedy(theirs, tokens, 8))
    ours.bfloat16()
    seconds = take_turns(
        {
            "ours": lambda: generate(reader(ours), tokens.tolist(), 32) and None,
            "transformers": lambda: their_greedy(theirs, tokens, 32) is None or None,
        },
        repeats,
    )
    what = "32 greedy tokens after 16, GPT-2 124M, bf16 weights; beside transformers' cache in fp32"
    yield faster("G3", what, 32 / seconds["ours"], 32 / seconds["transformers"], "tok/s", ">= 1.25")


def goal_15(repeats: int) -> Iterator[Row]:
    """A training step of char_lstm in bf16, beside nn.LSTM in fp32, and beside a loop of LSTMCells."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from dlzoo.models.sequence.char_rnn import char_lstm

    torch.set_num_threads(1)

    class Plain(nn.Module):
        """The same model of torch's parts; with cells a loop over the steps."""

        def __init__(self, width: int, cells: bool) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(VOCABULARY, width), nn.Linear(width, VOCABULARY)
            self.lstm = None if cells else nn.LSTM(width, width, 2, batch_first=True)
            self.cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(2 if cells else 0))

        def forward(self, tokens: Any) -> Any:
            x = self.embedding(tokens)
            if self.lstm is not None:
                return self.head(self.lstm(x)[0])
            for cell in self.cells:
                state, outputs = None, []
                for step in x.unbind(1):
                    state = cell(step, state)
                    outputs.append(state[0])
                x = torch.stack(outputs, 1)
            return self.head(x)

    for width, batch, bound in ((128, 32, ">= 5"), (512, 50, ">= 3.2")):
        x, y = torch.randint(VOCABULARY, (2, batch, 64))

        def step(net: Any, bf16: bool, x: Any = x, y: Any = y) -> Callable[[], None]:
            def run() -> None:
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    logits = net(x)
                F.cross_entropy(logits.float().flatten(0, 1), y.flatten()).backward()
                net.zero_grad()

            return run

        nets = {"ours": char_lstm(VOCABULARY, width), "nn.LSTM": Plain(width, False), "cells": Plain(width, True)}
        assert len({sum(p.numel() for p in net.parameters()) for net in nets.values()}) == 1
        seconds = take_turns({name: step(net, name == "ours") for name, net in nets.items()}, repeats)
        what = f"a step of a 2x{width} LSTM on {batch}x64 characters, bf16; beside"
        yield faster("G15", f"{what} nn.LSTM in fp32", seconds["ours"], seconds["nn.LSTM"], SECONDS, ">= 2.2")
        yield faster("G15", f"{what} a loop of LSTMCells in fp32", seconds["ours"], seconds["cells"], SECONDS, bound)


def goal_16(repeats: int) -> Iterator[Row]:
    """Causal attention of 8 heads of 64 on 2,048 tokens, as it picks its kernel, beside the four rows one could pick from."""
    import torch
    import torch.nn.functional as F

    from dlzoo.nn.attention import attend

    torch.set_num_threads(1)

    def naive(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        past = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
        return scores.masked_fill(~past, float("-inf")).softmax(-1) @ v

    def sdpa(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def ours(q: Any, k: Any, v: Any) -> Any:
        return attend(q, k, v, causal=True)

    for length in (64, 256, 1024):
        for training in (False, True):
            contenders = {}
            for dtype in (torch.float32, torch.bfloat16):
                given = [torch.randn(2048 // length, 8, length, 64).to(dtype).requires_grad_(training) for _ in range(3)]
                for name, function in (("naive", naive), ("sdpa", sdpa), ("ours", ours)):
                    contenders[name, dtype] = _pass(function, given, training)
            seconds = take_turns(contenders, 2 * repeats + 1)  # short: more rounds
            own = seconds["ours", torch.bfloat16]
            what = f"attention, {'forward and backward' if training else 'forward'}, T = {length}, bf16; beside"
            best = min(value for (name, _), value in seconds.items() if name != "ours")
            yield faster("G16", f"{what} the best of four", own, best, SECONDS, ">= 0.95")
            if training and length == 64:
                yield faster("G16", f"{what} SDPA in bf16", own, seconds["sdpa", torch.bfloat16], SECONDS, ">= 2.4")


def goal_17(repeats: int) -> Iterator[Row]:
    """The Transformer's encoder, 4 layers of 256, beside torch's and BERT's, forward and backward in fp32."""
    import torch
    from torch import nn

    from dlzoo.models.language.transformer import Transformer, TransformerSize

    torch.set_num_threads(1)
    batch, length, width, layers, heads, hidden = 8, 128, 256, 4, 4, 1024
    blocks = Transformer(2, 2, TransformerSize(width, layers, heads, hidden), dropout=0.0).encoder
    layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, batch_first=True)
    torchs = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    theirs = bert(layers, width, heads, hidden)
    x = torch.randn(batch, length, width, requires_grad=True)

    def ours(x: Any) -> Any:
        for block in blocks:
            x = block(x, None)  # no padding: nothing is masked, in any of the three
        return x

    nets = {"ours": blocks, "torch": torchs, "transformers": theirs}
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert len(set(counts.values())) == 1, counts
    contenders = {
        "ours": _pass(ours, [x], True),
        "torch": _pass(torchs, [x], True),
        "transformers": _pass(lambda x: theirs(x)[0], [x], True),
    }
    seconds = take_turns(contenders, repeats)
    best = min(seconds["torch"], seconds["transformers"])
    what = f"an encoder of {layers} layers of {width}, batch {batch}, T = {length}; beside the better of torch's and BERT's"
    yield faster("G17", what, seconds["ours"], best, SECONDS, ">= 1.05")


def _pass(function: Callable[..., Any], given: list[Any], training: bool) -> Callable[[], None]:
    """Forward, and in training backward to the inputs and to all weights."""
    import torch

    def run() -> None:
        with torch.set_grad_enabled(training):
            y = function(*given)
            if training:
                y.sum().backward()
                for tensor in given:
                    tensor.grad = None

    return run
