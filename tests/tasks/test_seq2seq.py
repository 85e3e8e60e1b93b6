"""The numbers of a translator: its loss against NumPy, BLEU and chrF against sacrebleu, however the batches and ranks fall."""

import functools
import random
from contextlib import contextmanager

import lightning as L
import numpy as np
import pytest
import sacrebleu
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from dlzoo.data.pair_batches import PairBatches
from dlzoo.data.sentences import BEGIN, END, PADDING
from dlzoo.models.language.transformer import Transformer, TransformerSize
from dlzoo.models.sequence.seq2seq import seq2seq_additive
from dlzoo.optim.schedules import constant
from dlzoo.tasks.seq2seq import SHOWN, Seq2Seq
from dlzoo.tasks.translation_metrics import BLEU, CHRF

VOCABULARY = 12
WORDS = ["A", "man", "dog", "the", "runs,", "runs", "blue", "house.", "Über", "two"]


class Words:
    """One word a token."""

    def decode(self, tokens):
        kept = []
        for token in tokens:
            if token == END:
                break
            if token > END:
                kept.append(WORDS[token - 3])
        return " ".join(kept)


class Data(L.LightningDataModule):
    """Pairs in which the target is the source backwards, in batches of a budget."""

    source, target, validates = "de", "en", True

    def __init__(self, budget=60, count=40):
        super().__init__()
        pick = np.random.default_rng(0)
        rows = [pick.integers(3, VOCABULARY, pick.integers(2, 7)) for _ in range(count)]
        self.pairs = [np.append(row, END) for row in rows], [np.append(row[::-1], END) for row in rows]
        self.budget = budget

    def sentences(self, language):
        return Words()

    def references(self, split):
        return [Words().decode(row) for row in self.pairs[1]]

    def loader(self, **options):
        return PairBatches(*self.pairs, batch_tokens=self.budget, **options)

    val_dataloader = test_dataloader = train_dataloader = loader


class Copies(nn.Module):
    """Writes the source as it is; sees in each state the whole source and the place."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, source):
        return source, source.new_zeros(len(source))

    def step(self, token, state):
        source, at = state
        next_token = source.gather(1, at.clamp(max=source.shape[1] - 1)[:, None])[:, 0]
        return self.weight * 9 * nn.functional.one_hot(next_token, VOCABULARY).float(), (source, at + 1)

    def forward(self, source, target):
        return self.weight * torch.sin(target[..., None] + source[:, :1, None] * torch.arange(VOCABULARY))

    def align(self, source, target):
        return torch.ones(*target.shape, source.shape[1]) / source.shape[1]


def task(net=None, **options):
    return Seq2Seq(net or Copies(), functools.partial(torch.optim.SGD, lr=0.1), constant, **options)


def measure(stage, data, model=None, strategy="auto"):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", strategy=strategy, **quiet)
    model = model or task()
    (trainer.test if stage == "test" else trainer.validate)(model, datamodule=data, verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}, model


@pytest.mark.parametrize("budget", [60, 30, 10_000])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_are_the_formulas_however_the_batches_fall(stage, budget):
    data = Data(budget)
    found, model = measure(stage, data)
    losses = []
    for source, target in zip(*data.pairs, strict=True):
        begun = np.append(BEGIN, target[:-1])
        logits = np.sin(begun[:, None] + source[0] * np.arange(VOCABULARY))
        losses += list(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(target)), target])
    assert found[f"{stage}/loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found[f"{stage}/ppl"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    written = [Words().decode(row) for row in data.pairs[0]]
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    assert found[f"{stage}/bleu"] == pytest.approx(bleu.corpus_score(written, [data.references(stage)]).score, rel=1e-6)
    assert found[f"{stage}/chrf"] == pytest.approx(chrf.corpus_score(written, [data.references(stage)]).score, rel=1e-6)
    how = "greedy" if stage == "val" else "beam:5|alpha:0.6"
    assert model.signatures == {
        f"{stage}/bleu": f"{bleu.get_signature()}|{how}",
        f"{stage}/chrf": f"{chrf.get_signature()}|{how}",
    }


def _texts(count, seed):
    pick = random.Random(seed)
    references = [" ".join(pick.choices(WORDS, k=pick.randint(1, 14))) for _ in range(count)]
    written = [" ".join(word for word in line.split() if pick.random() > 0.2) for line in references]
    return written, references


@pytest.mark.parametrize(("kind", "theirs"), [(BLEU, sacrebleu.BLEU), (CHRF, sacrebleu.CHRF)])
@pytest.mark.parametrize("count", [1, 7, 60])
def test_scores_are_sacrebleus(kind, theirs, count):
    for seed in range(5):
        written, references = _texts(count, seed)
        metric = kind()
        for low in range(0, count, 9):
            metric.update(written[low : low + 9], references[low : low + 9])
        assert metric.compute().item() == pytest.approx(theirs().corpus_score(written, [references]).score, rel=1e-6)


@pytest.mark.parametrize(("kind", "theirs"), [(BLEU, sacrebleu.BLEU), (CHRF, sacrebleu.CHRF)])
def test_the_counts_of_ranks_add_up(kind, theirs):
    written, references = _texts(30, 3)
    one, other = kind(), kind()
    one.update(written[::2], references[::2])
    other.update(written[1::2], references[1::2])
    assert one._reductions["counts"] is torch.sum or one._reductions["counts"].__name__ == "dim_zero_sum"
    one.counts += other.counts  # what torchmetrics does with the states of all ranks
    assert one.compute().item() == pytest.approx(theirs().corpus_score(written, [references]).score, rel=1e-6)


def test_nothing_right_is_nothing():
    for metric in (BLEU(), CHRF()):
        metric.update(["xyz"], ["A man."])
        assert metric.compute() == 0
        metric.update([], [])
        assert metric.compute() == 0
    empty = CHRF()
    empty.update([""], ["A man."])
    assert empty.compute() == 0


@pytest.mark.parametrize("world", [2, 3])
def test_the_training_loss_of_the_ranks_is_that_of_one(world):
    """Their mean, and so the mean of their gradients, though one has more tokens than another."""
    data, smooth = Data(140), 0.2
    for at, batch in enumerate(data.loader()):
        net = Copies()
        whole = task(net, label_smoothing=smooth).training_step(batch, 0)
        whole.backward()
        parts = Copies()
        losses = [
            task(parts, label_smoothing=smooth).training_step(list(data.loader(rank=rank, world_size=world))[at], 0)
            for rank in range(world)
        ]
        (sum(losses) / world).backward()
        assert sum(losses).item() / world == pytest.approx(whole.item(), rel=1e-6)
        torch.testing.assert_close(parts.weight.grad, net.weight.grad)


def test_label_smoothing_mixes_the_uniform_distribution_in():
    batch = next(iter(Data().loader()))
    logs = Copies()(batch.source, batch.target[:, :-1]).detach().double().log_softmax(-1)
    y = batch.target[:, 1:]
    right, real = logs.gather(-1, y[..., None])[..., 0], y != PADDING
    smooth = -(0.7 * right + 0.3 * logs.mean(-1))[real].mean()
    assert task(label_smoothing=0.3).training_step(batch, 0).item() == pytest.approx(smooth.item(), rel=1e-5)


NETS = {
    "seq2seq": lambda: seq2seq_additive(VOCABULARY, VOCABULARY, embedding=8, width=12, dropout=0.0),
    "transformer": lambda: Transformer(VOCABULARY, VOCABULARY, TransformerSize(12, 2, 3, 16), "pre", "all", 0.0),
}


@pytest.mark.parametrize("kind", NETS)
def test_what_fills_rows_up_changes_nothing(kind):
    """The loss and every gradient of a batch are those of its sentences one by one."""
    torch.manual_seed(0)
    net, data = NETS[kind](), Data(90)
    model = task(net, label_smoothing=0.1)
    batch = list(data.loader(bucket=9))[-2]
    assert (batch.source == PADDING).any() and (batch.target == PADDING).any()
    loss = model.training_step(batch, 0)
    loss.backward()
    together = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    net.zero_grad()
    alone = 0.0
    for at in range(len(batch.index)):
        source, target = (rows[at][rows[at] != PADDING][None] for rows in (batch.source, batch.target))
        part = model.training_step(batch._replace(source=source, target=target), 0)
        part.backward()
        alone += part.item()
    assert loss.item() == pytest.approx(alone, rel=1e-5)
    for name, weight in net.named_parameters():
        torch.testing.assert_close(weight.grad, together[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", NETS)
def test_both_kinds_of_network_are_measured_and_shown(kind):
    torch.manual_seed(0)
    model, shown = task(NETS[kind](), max_length=9, measured=10), {}
    translate = model._translate

    def watched(batch, stage):
        outputs = translate(batch, stage)
        for at, looks, source in zip(*(outputs.get(name, []) for name in ("shown", "looks", "source")), strict=True):
            shown[int(at)] = looks
            assert looks.shape == (9, len(source))
            torch.testing.assert_close(looks.sum(1), torch.ones(9))
            assert (looks[:, source == PADDING] == 0).all()
        return outputs

    model._translate = watched
    found, _ = measure("val", Data(), model)
    assert 0 <= found["val/bleu"] <= 100 and found["val/loss"] > 1
    assert sorted(shown) == list(range(SHOWN))


def test_only_the_first_sentences_are_measured_in_validation_and_all_in_the_test():
    data = Data()
    for count in (3, 25):
        found, _ = measure("val", data, task(measured=count))
        written = [Words().decode(row) for row in data.pairs[0]][:count]
        expected = sacrebleu.BLEU().corpus_score(written, [data.references("val")[:count]]).score
        assert found["val/bleu"] == pytest.approx(expected, rel=1e-6)
    full = measure("test", data, task(measured=3))[0]["test/bleu"]
    assert full == pytest.approx(measure("test", data, task())[0]["test/bleu"])
    without, model = measure("val", data, task(measured=0))
    assert set(without) == {"val/loss", "val/ppl"} and model.signatures == {}
    assert "val/bleu" not in model.logged and "val/bleu" in task().logged


class Shares(SingleDeviceStrategy):
    """Whole weights on demand only, and how often."""

    inside, times = False, 0

    @contextmanager
    def whole(self, net):
        self.inside, self.times = True, self.times + 1
        yield
        self.inside = False


def test_every_batch_gathers_the_weights_whatever_there_is_to_translate(monkeypatch):
    """All ranks have to, and one of them may have no sentence to measure, or none to show."""
    strategy, calls = Shares("cpu"), []
    for name in ("encode", "step", "align"):
        method = getattr(Copies, name)

        def watched(net, *given, method=method, name=name):
            calls.append((name, strategy.inside))
            return method(net, *given)

        monkeypatch.setattr(Copies, name, watched)
    data = Data()
    measure("val", data, task(measured=1), strategy=strategy)
    assert strategy.times == len(data.loader()) > 1
    assert {"encode", "step", "align"} == {name for name, _ in calls} and all(inside for _, inside in calls)
    assert [name for name, _ in calls].count("align") == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing must be from 0 to 1"),
        ({"measured": -1}, "measured must be at least 0"),
        ({"beams": 0}, "beams must be at least 1"),
        ({"max_length": 0}, "max_length must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        task(**options)
