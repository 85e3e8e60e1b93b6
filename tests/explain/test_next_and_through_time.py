"""What is expected next, and how far back it depends: against counts and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlzoo.errors import ConfigError
from dlzoo.explain.next_tokens import next_tokens
from dlzoo.explain.through_time import input_gradients
from dlzoo.models.language.gpt import GPT, GPTSize
from dlzoo.models.sequence.char_rnn import char_lstm, char_rnn


class Table(nn.Module):
    """After each token the next ones have the probabilities of its row."""

    def __init__(self, rows):
        super().__init__()
        self.logits = nn.Embedding.from_pretrained(torch.tensor(rows).log())

    def forward(self, tokens):
        return self.logits(tokens)


def test_what_is_expected_is_the_row_of_the_table():
    net = Table([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.25, 0.25, 0.5]])
    found = next_tokens(net, torch.tensor([0, 1, 2, 0]), 2)
    assert found.tokens.tolist() == [[1, 2], [0, 2], [2, found.tokens[2, 1]]]
    torch.testing.assert_close(found.probabilities.float(), torch.tensor([[0.7, 0.2], [0.5, 0.3], [0.5, 0.25]]))
    torch.testing.assert_close(found.true.float(), torch.tensor([0.7, 0.3, 0.25]))
    assert found.rank.tolist() == [0, 1, 1]
    assert next_tokens(net, torch.tensor([0, 1]), 99).tokens.shape == (1, 3)
    for text, count in (([0], 2), ([0, 1], 0)):
        with pytest.raises(ValueError, match="at least 2 tokens and count at least 1"):
            next_tokens(net, torch.tensor(text), count)


@pytest.mark.parametrize(
    "net",
    [
        char_lstm(vocab_size=7, width=6),
        char_rnn(vocab_size=7, width=6, tied=True),
        GPT(GPTSize(8, 2, 2), vocab_size=7, context=6),
    ],
    ids=["lstm", "tied rnn", "gpt"],
)
def test_the_gradient_is_what_a_nudge_of_a_vector_does(net):
    torch.manual_seed(0)
    net = net.double().eval()
    table = net.embedding if hasattr(net, "embedding") else net.tokens
    tokens = torch.tensor([[0, 1, 2, 3, 4]])  # each once: a row of the table is one place
    found = input_gradients(net, tokens)
    assert found.shape == (4,)
    for place in range(4):
        slopes = []
        for feature in range(table.embedding_dim):
            ends = []
            for nudge in (1e-5, -1e-5):

                def moved(module, given, output, place=place, feature=feature, nudge=nudge):
                    output = output.clone()
                    output[0, place, feature] += nudge
                    return output

                handle = table.register_forward_hook(moved)
                with torch.no_grad():
                    ends.append(F.cross_entropy(net(tokens[:, :-1])[:, -1], tokens[:, -1]))
                handle.remove()
            slopes.append((ends[0] - ends[1]) / 2e-5)
        torch.testing.assert_close(found[place], torch.stack(slopes).norm(), rtol=1e-5, atol=1e-9)


def test_of_several_texts_the_mean():
    torch.manual_seed(0)
    net, tokens = char_lstm(vocab_size=7, width=6), torch.randint(7, (3, 5))
    single = torch.stack([input_gradients(net, row[None]) for row in tokens])
    torch.testing.assert_close(input_gradients(net, tokens), single.mean(0))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_reads_no_tokens_is_refused():
    with pytest.raises(ConfigError, match="Identity looks no tokens up"):
        input_gradients(nn.Identity(), torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 2 tokens"):
        input_gradients(nn.Identity(), torch.zeros(1, 1, dtype=torch.long))
