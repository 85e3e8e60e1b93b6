"""The numbers of a language model against formulas in NumPy, in uneven batches; and what it adds to a text."""

import functools

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from dlzoo.data.token_batches import NOTHING
from dlzoo.optim.schedules import constant
from dlzoo.tasks.language_modeling import LanguageModeling

TOKENS, PLACES = 5, 6
LENGTHS = np.array([1, 2, 0, 3, 1])  # characters of each token


class Table(nn.Module):
    """Looks the logits of the next token up, by the token before it."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(1)
        self.logits = nn.Parameter(torch.from_numpy(random.normal(size=(TOKENS, TOKENS)).astype(np.float32)))

    def forward(self, x):
        return self.logits[x]


class Follow(nn.Module):
    """Is sure that after token t comes t + 1; remembers the windows that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.asked = []

    def forward(self, x):
        self.asked.append(x.clone())
        return self.weight * 1e4 * nn.functional.one_hot((x + 1) % TOKENS, TOKENS).float()


class Batches:
    """A loader of these batches; Lightning takes a bare list for several loaders."""

    def __init__(self, batches) -> None:
        self.batches = list(batches)

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Data(L.LightningDataModule):
    """Those batches, from a tokenizer whose tokens have lengths."""

    characters = LENGTHS

    def __init__(self, batches) -> None:
        super().__init__()
        self.val_dataloader = self.test_dataloader = lambda: Batches(batches)


def task(net: nn.Module | None = None, **options) -> LanguageModeling:
    return LanguageModeling(net or Table(), functools.partial(torch.optim.SGD, lr=0.1), constant, **options)


def samples(count: int = 7):
    random = np.random.default_rng(0)
    x, y = random.integers(0, TOKENS, (2, count, PLACES))
    y[4, 2:] = NOTHING  # the end of a text: means over windows are not means over tokens
    return torch.from_numpy(x), torch.from_numpy(y)


def measured(sizes: list[int], stage: str, lengths: bool = True) -> dict[str, float]:
    batches = list(zip(*(each.split(sizes) for each in samples()), strict=True))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    run = trainer.test if stage == "test" else trainer.validate
    run(
        task(sample_length=0),
        **({"datamodule": Data(batches)} if lengths else {"dataloaders": Batches(batches)}),
        verbose=False,
    )
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def expected(lengths: np.ndarray) -> dict[str, float]:
    x, y = (each.numpy() for each in samples())
    there = y != NOTHING
    logits = Table().logits.detach().double().numpy()[x[there]]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(there.sum()), y[there]]
    bits = losses.sum() / np.log(2)
    return {"loss": losses.mean(), "ppl": np.exp(losses.mean()), "bpc": bits / lengths[y[there]].sum()}


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1] * 7], ids=["one", "uneven", "single"])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_are_the_formulas_however_the_batches_fall(sizes, stage):
    metrics = measured(sizes, stage)
    for name, value in expected(LENGTHS).items():
        assert metrics[f"{stage}/{name}"] == pytest.approx(value, rel=1e-5), name


def test_without_lengths_each_token_is_a_character():
    value = measured([7], "test", lengths=False)["test/bpc"]
    assert value == pytest.approx(expected(np.ones(TOKENS, dtype=int))["bpc"], rel=1e-5)
    assert value == pytest.approx(expected(LENGTHS)["loss"] / np.log(2), rel=1e-5)


def test_the_training_loss_and_its_gradient_do_not_see_the_places_without_a_target():
    x, y = samples()
    net = Table()
    loss = task(net).training_step((x, y), 0)
    assert loss.item() == pytest.approx(expected(LENGTHS)["loss"], rel=1e-5)
    loss.backward()
    before, net.logits.grad = net.logits.grad, None
    x[4, 2:] = (x[4, 2:] + 1) % TOKENS
    task(net).training_step((x, y), 0).backward()
    torch.testing.assert_close(net.logits.grad, before)


def test_label_smoothing_mixes_the_uniform_distribution_in_and_only_in_training():
    x, y = (each[:3] for each in samples())
    logs = Table().logits.detach().double()[x].log_softmax(-1)
    right = logs.gather(-1, y[..., None])[..., 0]
    smooth = -(0.8 * right + 0.2 * logs.mean(-1)).mean()
    assert task(label_smoothing=0.2).training_step((x, y), 0).item() == pytest.approx(smooth.item(), rel=1e-5)


def test_it_goes_on_with_the_first_window():
    net = Follow()
    model = task(net, sample_length=7, seed=3)
    x, y = torch.tensor([[0, 1, 2], [4, 4, 4]]), torch.tensor([[1, 2, 3], [0, 0, 0]])
    outputs = model._sampled((x, y), 0)
    assert outputs["prompt"].tolist() == [0, 1, 2] and outputs["sample"].tolist() == [3, 4, 0, 1, 2, 3, 4]
    assert all(window.shape == (1, 3) for window in net.asked) and net.asked[2].tolist() == [[2, 3, 4]]
    assert model._sampled((x, y), 1) == {} and task(net, sample_length=0)._sampled((x, y), 0) == {}


def test_what_it_draws_depends_on_seed_and_epoch_and_leaves_torch_alone():
    batch = samples()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn = [task(sample_length=40, seed=seed)._sampled(batch, 0)["sample"].tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and torch.equal(torch.get_rng_state(), state)


def test_draws_follow_the_predictions():
    net = Table()
    net.logits.data = torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0]).log().clamp(min=-50).expand(TOKENS, TOKENS)
    drawn = task(net, sample_length=4_000)._sampled(samples(), 0)["sample"]
    shares = drawn.bincount(minlength=TOKENS) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0]), atol=0.03, rtol=0)


def test_it_says_what_it_logs_and_how_it_answers():
    assert set(task().logged) == {f"{stage}/{name}" for stage in ("val", "test") for name in ("loss", "ppl", "bpc")}
    assert LanguageModeling.answers == "text" and task(sample_length=9).hparams["sample_length"] == 9


@pytest.mark.parametrize("words", [{"label_smoothing": 1.1}, {"sample_length": -1}], ids=["label_smoothing", "sample_length"])
def test_what_can_not_be_is_refused(words):
    with pytest.raises(ValueError, match=next(iter(words))):
        task(**words)
