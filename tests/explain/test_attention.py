"""Maps of attention against the whole forward pass in NumPy; they are shares, and of nothing that is not to be seen."""

import numpy as np
import pytest
import torch

from dlzoo.errors import ConfigError
from dlzoo.explain.attention import attention_maps
from dlzoo.models.language.gpt import GPT, GPTSize
from dlzoo.models.language.llama import Llama, LlamaSize
from dlzoo.models.language.transformer import Transformer, TransformerSize
from dlzoo.models.sequence.char_rnn import char_lstm


def randomised(net):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3)
    return net.eval()


def some(rows, length, least=0):
    return torch.randint(least, 11, (rows, length), generator=torch.Generator().manual_seed(1))


def by_hand(net: GPT, tokens: np.ndarray) -> list[np.ndarray]:
    """The attention of each block of a GPT, (h, T, T): every step of its forward pass, in loops and NumPy."""
    weights = {name: tensor.detach().double().numpy() for name, tensor in net.named_parameters()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x, found = weights["tokens.weight"][tokens] + weights["positions.weight"][: len(tokens)], []
    for index, block in enumerate(net.blocks):
        here, heads = f"blocks.{index}", block.attention.heads
        q, k, v = np.split(linear(norm(x, f"{here}.norm1"), f"{here}.attention.qkv"), 3, -1)
        d, maps, answers = q.shape[1] // heads, np.zeros((heads, len(tokens), len(tokens))), np.zeros_like(q)
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            for t in range(len(tokens)):
                scores = np.array([q[t, part] @ k[s, part] for s in range(t + 1)]) / np.sqrt(d)
                maps[head, t, : t + 1] = np.exp(scores) / np.exp(scores).sum()
            answers[:, part] = maps[head] @ v[:, part]
        found.append(maps)
        x = x + linear(answers, f"{here}.attention.proj")
        hidden = linear(norm(x, f"{here}.norm2"), f"{here}.mlp.0")
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + linear(hidden, f"{here}.mlp.2")
    return found


def test_a_gpts_heads_are_those_of_the_formula():
    net, tokens = randomised(GPT(GPTSize(12, 3, 2), vocab_size=11, context=9)), some(2, 7)
    net.train()
    found = attention_maps(net, tokens)
    assert net.training and net.blocks[0].training  # as it was
    assert list(found) == ["blocks.0.attention", "blocks.1.attention", "blocks.2.attention"]
    for row in range(2):
        for ours, theirs in zip(found.values(), by_hand(net, tokens[row].numpy()), strict=True):
            np.testing.assert_allclose(ours[row].numpy(), theirs, atol=2e-6)
    assert max(weights.std().item() for weights in found.values()) > 0.1  # not all alike: something is told


@pytest.mark.parametrize(
    "net",
    [GPT(GPTSize(12, 2, 2), vocab_size=11, context=9), Llama(LlamaSize(24, 2, 4, 2, 20), vocab_size=11, context=16)],
    ids=["gpt", "llama"],
)
def test_rows_are_shares_and_nothing_later_is_seen(net):
    for weights in attention_maps(randomised(net), some(3, 8)).values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert weights.triu(1).abs().max() == 0
        assert (weights > 0).sum() == weights.shape[0] * weights.shape[1] * 8 * 9 // 2


def test_a_translators_three_kinds():
    """Encoder, decoder and cross attention; padding of the source is not seen, and the cross maps are the model's own."""
    net = randomised(Transformer(11, 11, TransformerSize(width=12, depth=2, heads=2, hidden=10)))
    source, target = some(2, 6, least=1), some(2, 5, least=1)
    source[1, 4:] = 0
    found = attention_maps(net, source, target)
    shapes = {name: tuple(weights.shape) for name, weights in found.items()}
    assert shapes == {
        **{f"encoder.{layer}.attention": (2, 2, 6, 6) for layer in range(2)},
        **{f"decoder.{layer}.attention": (2, 2, 5, 5) for layer in range(2)},
        **{f"decoder.{layer}.cross": (2, 2, 5, 6) for layer in range(2)},
    }
    for name, weights in found.items():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        if "decoder" in name and "cross" not in name:
            assert weights.triu(1).abs().max() == 0
        else:
            assert weights[1, ..., 4:].abs().max() == 0 and weights[0].min() > 0
    cross = torch.stack([found[f"decoder.{layer}.cross"] for layer in range(2)], 1)
    torch.testing.assert_close(cross, net.looks(source, target))


def test_a_network_without_attention_is_refused():
    with pytest.raises(ConfigError, match="CharRNN has no attention"):
        attention_maps(char_lstm(vocab_size=11, width=8), some(1, 4))
