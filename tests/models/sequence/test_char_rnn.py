"""Recurrent language models: torch's layers in a row, a state that carries everything, no look ahead."""

import pytest
import torch
from torch import nn

from dlzoo.models.sequence import char_rnn as zoo_file
from dlzoo.models.sequence.char_rnn import CharRNN
from dlzoo.nn.recurrent import GRU, LSTM, RNN

MODELS = {"char_lstm": nn.LSTM, "char_gru": nn.GRU, "char_rnn": nn.RNN}
SIZES = {"char_lstm": 280_897, "char_gru": 214_849, "char_rnn": 82_753}
VOCABULARY, WIDTH, BATCH, TOKENS = 11, 6, 3, 7


def tiny(name="char_lstm", **words):
    torch.manual_seed(0)
    net = getattr(zoo_file, name)(vocab_size=VOCABULARY, width=WIDTH, **words).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


def tokens(length=TOKENS):
    return torch.randint(VOCABULARY, (BATCH, length), generator=torch.Generator().manual_seed(1))


def near(one, two, what=""):
    scale = two.abs().max()
    assert scale > 0, what
    assert (one - two).abs().max() <= 1e-10 * scale, what


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    make = getattr(zoo_file, name)
    assert count(make()) == SIZES[name]
    assert f"{SIZES[name]:,}" in make.__doc__


def test_the_large_one_is_as_wide_as_its_file_says():
    assert count(zoo_file.char_lstm(width=512)) == 4_269_121
    assert "4,269,121 with a width of 512" in zoo_file.char_lstm.__doc__


@pytest.mark.parametrize("tied", [False, True], ids=["two matrices", "one matrix"])
@pytest.mark.parametrize("name", MODELS)
def test_is_torchs_layers_in_a_row(name, tied):
    net = tiny(name, tied=tied)
    embedding, layers = nn.Embedding(VOCABULARY, WIDTH), MODELS[name](WIDTH, WIDTH, 2, batch_first=True)
    head = nn.Linear(WIDTH, VOCABULARY, bias=not tied)
    if tied:
        head.weight = embedding.weight
    theirs = nn.ModuleList([embedding, layers, head]).double()
    own = dict(net.named_parameters())
    renamed = {"0.": "embedding.", "1.": "recurrent.kernel.", "2.": "head."}
    names = {key: renamed[key[:2]] + key[2:] for key, _ in theirs.named_parameters()}
    assert set(names.values()) == set(own)
    for key, parameter in theirs.named_parameters():
        parameter.data = own[names[key]].detach().clone()
    logits, expected = net(tokens()), head(layers(embedding(tokens()))[0])
    assert logits.shape == (BATCH, TOKENS, VOCABULARY)
    near(logits, expected)
    pull = torch.randn_like(logits)
    (logits * pull).sum().backward()
    (expected * pull).sum().backward()
    for key, parameter in theirs.named_parameters():
        near(own[names[key]].grad, parameter.grad, key)


@pytest.mark.parametrize("name", MODELS)
def test_one_token_at_a_time_is_the_whole_text(name):
    net, text = tiny(name), tokens()
    whole, end = net.with_state(text)
    assert torch.equal(whole, net(text))
    state = net.zeros(BATCH)
    for t in range(TOKENS):
        logits, state = net.with_state(text[:, t : t + 1], state)
        near(logits[:, 0], whole[:, t])
    for one, two in zip(state, end, strict=True):
        assert two.shape == (2, BATCH, WIDTH)
        near(one, two)


@pytest.mark.parametrize("name", MODELS)
def test_no_logit_sees_a_later_token(name):
    net, text = tiny(name), tokens()
    other = text.clone()
    other[:, 4] = (other[:, 4] + 1) % VOCABULARY
    one, two = net(text), net(other)
    assert torch.equal(one[:, :4], two[:, :4])
    assert (one[:, 4:] != two[:, 4:]).all()


def test_the_gradient_crosses_windows_until_it_is_cut():
    """Training window after window: the state hands the gradient on, and detached it does not."""
    net, text = tiny(), tokens()
    _, state = net.with_state(text[:, :4])
    for cut in (False, True):
        handed = tuple(part.detach() if cut else part for part in state)
        logits, _ = net.with_state(text[:, 4:5], handed)
        (gradient,) = torch.autograd.grad(logits.sum(), net.embedding.weight, retain_graph=True)
        read = set(text[:, 4].tolist()) if cut else set(text[:, :5].flatten().tolist())
        assert set(gradient.any(1).nonzero().flatten().tolist()) == read


def test_dropout_is_in_front_of_the_layers_between_and_behind():
    torch.manual_seed(0)
    net = zoo_file.char_lstm(vocab_size=VOCABULARY, width=WIDTH, dropout=0.5)
    assert net.recurrent.kernel.dropout == net.dropout.p == 0.5
    zeroed = []
    net.recurrent.register_forward_pre_hook(lambda _, given: zeroed.append((given[0] == 0).float().mean()))
    net.head.register_forward_pre_hook(lambda _, given: zeroed.append((given[0] == 0).float().mean()))
    net(tokens(200))
    assert [share.item() for share in zeroed] == pytest.approx([0.5, 0.5], abs=0.05)
    zeroed.clear()
    net.eval()(tokens())
    assert zeroed == [0, 0]


def test_tied_vectors_are_short_enough_for_a_head():
    torch.manual_seed(0)
    net = zoo_file.char_lstm(tied=True)
    assert net.head is None and net.embedding.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert net(torch.randint(65, (2, 9))).abs().max() < 1
    assert count(net) == 280_897 - 65 * 129


def test_it_learns_a_rhyme():
    """What follows a 2 depends on what stood before it: a table of pairs of tokens cannot know."""
    torch.manual_seed(0)
    net = zoo_file.char_lstm(vocab_size=3, width=8, layers=1)
    text = torch.tensor([[0, 2, 0, 0, 1, 2, 1, 1] * 4])
    for _ in range(150):
        loss = nn.functional.cross_entropy(net(text[:, :-1]).flatten(0, 1), text[0, 1:])
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= gradient
    assert net(text[:, :-1])[0, 8:].argmax(1).tolist() == text[0, 9:].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zoo_file.char_lstm(vocab_size=0), "vocab_size must be at least 1, got 0"),
        (lambda: CharRNN(GRU(4, 4), 5, dropout=2.0), "dropout must be from 0 to 1, got 2.0"),
        (lambda: CharRNN(LSTM(4, 4, bidirectional=True), 5), "must not be bidirectional"),
        (lambda: CharRNN(RNN(4, 6), 5, tied=True), "as wide as the vectors, 4, got 6"),
    ],
    ids=["vocabulary", "dropout", "backwards", "tied"],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
