"""Generation: what is written is the same, however the network reads, and whoever is beside it in the batch."""

import pytest
import torch
from torch import nn

from dlzoo.models.language.gpt import GPT, GPTSize
from dlzoo.models.language.llama import Llama, LlamaSize
from dlzoo.models.sequence.char_rnn import char_gru, char_lstm, char_rnn
from dlzoo.nn.reading import CacheReader, StateReader, WindowReader, reader
from dlzoo.ops.generation import Choice, generate, window_start
from dlzoo.ops.next_token import repetition_penalty

V, CONTEXT = 13, 12
NETS = {
    "gpt": lambda: GPT(GPTSize(16, 2, 2), V, CONTEXT),
    "llama": lambda: Llama(LlamaSize(16, 2, 4, 2, 24), V, CONTEXT),
    "lstm": lambda: char_lstm(V, 8),
    "gru": lambda: char_gru(V, 8),
    "rnn": lambda: char_rnn(V, 8),
}
SPREAD = {"lstm": 2.0, "gru": 2.0, "rnn": 2.0}
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [3] * 30, [1, 12]]


def made(name: str) -> nn.Module:
    """Weights so large that the answers depend on what was read, and do not settle on one token."""
    torch.manual_seed(0)
    net = NETS[name]().double().eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in key else 0.0, std=4.0 if "positions" in key else SPREAD.get(name, 0.6))
            if key in ("tokens.weight", "norm.bias", "head.bias"):  # no token shall win whatever was read
                parameter.copy_(nn.functional.normalize(parameter, dim=-1) if parameter.ndim == 2 else 0 * parameter)
    return net


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in range(count)]


def test_each_network_is_read_its_own_way():
    kinds = {name: type(reader(made(name))) for name in NETS}
    assert kinds == {"gpt": CacheReader, "llama": CacheReader, "lstm": StateReader, "gru": StateReader, "rnn": StateReader}
    assert reader(made("gpt")).context == CONTEXT and reader(made("lstm")).context is None
    other = reader(nn.Linear(2, 2), context=7)
    assert isinstance(other, WindowReader) and other.context == 7


@pytest.mark.parametrize("name", NETS)
def test_greedy_text_is_the_one_without_a_cache_row_by_row(name):
    """Prompts of unequal length, one past the context, and 40 tokens: the window of the others begins anew several times."""
    net = made(name)
    together = generate(reader(net), PROMPTS, 40)
    for prompt, row in zip(PROMPTS, together, strict=True):
        assert row == generate(WindowReader(net), [prompt], 40)[0]
    assert len({tuple(row) for row in together}) == 5 and max(len(set(row)) for row in together) > 2


@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_draws_too_and_rows_that_end_leave_the_others_alone(name):
    net, choice = made(name), Choice(1.3, 9, 0.95, 1.1)
    written: dict[int, list[int]] = {row: [] for row in range(len(PROMPTS))}

    def told(row: int, token: int) -> bool:
        written[row].append(token)
        return row in (0, 3) and len(written[row]) == 5 + row

    together = generate(reader(net), PROMPTS, 25, choice, generators(5), told)
    assert [len(row) for row in together] == [5, 25, 25, 8, 25] and list(written.values()) == together
    for at, prompt in enumerate(PROMPTS):
        alone = generate(WindowReader(net), [prompt], 25, choice, generators(5)[at : at + 1])[0]
        assert together[at] == alone[: len(together[at])], at


@pytest.mark.parametrize("name", ["gpt", "llama", "lstm"])
def test_a_text_in_two_parts_is_the_text_at_once(name):
    net = made(name)
    whole = generate(reader(net), [[1, 2]], 40)[0]
    for cut in (3, 10, 11, 25):
        assert whole[cut:] == generate(reader(net), [[1, 2, *whole[:cut]]], 40 - cut)[0]


def test_past_the_context_a_window_begins_anew_with_the_last_half():
    """A cache that is filled again, seen from the network: as many tokens as it may see, then half, then one by one."""
    net, seen = made("gpt"), []
    original = net.features
    net.features = lambda tokens, cache=None: seen.append(tokens.shape[1]) or original(tokens, cache)
    generate(reader(net), [[1] * 10], 12)
    assert seen == [10, 1, 1, CONTEXT // 2, 1, 1, 1, 1, 1, 1, CONTEXT // 2, 1]


def test_states_of_unequal_rows_are_those_alone():
    net, rows = made("lstm"), StateReader(made("lstm"))
    rows.begin([[1, 2, 3], [4]], 5)
    for row, tokens in enumerate(([1, 2, 3], [4])):
        _, state = net.with_state(torch.tensor([tokens]))
        for one, other in zip(rows.state, state, strict=True):
            torch.testing.assert_close(one[:, row], other[:, 0], rtol=1e-12, atol=1e-12)


def test_nothing_is_asked_of_the_network_that_is_not_needed():
    """The logits of the last token alone, and no step after the last token was chosen."""
    net, asked = made("gpt"), []
    original = net.logits
    net.logits = lambda features: asked.append(tuple(features.shape)) or original(features)
    generate(reader(net), [[1, 2, 3], [4]], 4)
    assert asked == [(2, 16)] * 4


def test_a_penalty_counts_the_whole_text_and_what_was_written():
    """Beyond the window too: step by step, from the formula over all tokens so far."""
    net, text = made("gpt"), [1, 2]
    fined = generate(reader(net), [text], 30, Choice(0.0, repetition_penalty=1.5))[0]
    for token in fined:
        window = torch.tensor([text[window_start(len(text), CONTEXT) :]])
        logits = repetition_penalty(net(window)[:, -1], torch.tensor([text]), 1.5)
        assert token == logits.argmax().item()
        text.append(token)
    assert fined != generate(reader(net), [[1, 2]], 30)[0]
