"""The numbers of a segmentation against formulas in NumPy, in uneven batches, with pixels that nobody labelled."""

import functools

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from dlzoo.optim.schedules import constant
from dlzoo.tasks.segmentation import Segmentation

CLASSES, IGNORED = 4, 9


class Given(nn.Module):
    """Gives the image itself as logits, scaled by a weight that starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * x


class Batches:
    """A loader of these batches; Lightning takes a bare list for several loaders."""

    def __init__(self, batches) -> None:
        self.batches = list(batches)

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def task(net: nn.Module | None = None, **options) -> Segmentation:
    options = {"num_classes": CLASSES, "ignore_index": IGNORED} | options
    return Segmentation(net or Given(), functools.partial(torch.optim.SGD, lr=0.1), constant, **options)


def samples(count: int = 7):
    random = np.random.default_rng(0)
    logits = random.normal(size=(count, CLASSES, 5, 6)).astype(np.float32)
    masks = random.integers(0, CLASSES - 1, (count, 5, 6))  # the last class never occurs
    masks[random.random(masks.shape) < 0.3] = IGNORED
    masks[3, :4] = IGNORED  # one image has few labels: means over images are not means over pixels
    return logits, masks


def measured(logits: np.ndarray, masks: np.ndarray, sizes: list[int], stage: str = "test") -> dict[str, float]:
    batches = zip(torch.from_numpy(logits).split(sizes), torch.from_numpy(masks).split(sizes), strict=True)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    run = trainer.test if stage == "test" else trainer.validate
    run(task(), Batches(batches), verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def expected(logits: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    labelled = masks != IGNORED
    found = logits.argmax(1)[labelled]
    truth = masks[labelled]
    overlaps = []
    for label in range(CLASSES):
        union = ((found == label) | (truth == label)).sum()
        if union:
            overlaps.append(((found == label) & (truth == label)).sum() / union)
    wide = logits.astype(np.float64).transpose(0, 2, 3, 1)[labelled]
    losses = np.log(np.exp(wide).sum(1)) - wide[np.arange(len(truth)), truth]
    return {"miou": np.mean(overlaps), "acc": (found == truth).mean(), "loss": losses.mean()}


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [2, 5], [1] * 7])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_are_the_formulas_however_the_batches_fall(sizes, stage):
    logits, masks = samples()
    metrics = measured(logits, masks, sizes, stage)
    for name, value in expected(logits, masks).items():
        assert metrics[f"{stage}/{name}"] == pytest.approx(value, rel=1e-5), name


def test_a_class_that_is_nowhere_does_not_count_and_one_that_is_only_predicted_does():
    logits, masks = samples()
    logits[:, CLASSES - 1] = -100.0  # never predicted, and never there
    without = expected(logits, masks)["miou"]
    metrics = measured(logits, masks, [7])
    assert metrics["test/miou"] == pytest.approx(without, rel=1e-5)
    logits[0, CLASSES - 1, 0, 0], masks[0, 0, 0] = 100.0, 0
    assert measured(logits, masks, [7])["test/miou"] == pytest.approx(expected(logits, masks)["miou"], rel=1e-5)
    assert measured(logits, masks, [7])["test/miou"] < 0.9 * without


def test_the_training_loss_and_its_gradient_do_not_see_unlabelled_pixels():
    logits, masks = (torch.from_numpy(each) for each in samples())
    loss = task().training_step((logits, masks), 0)
    assert loss.item() == pytest.approx(expected(*samples())["loss"], rel=1e-5)
    leaf = logits.clone().requires_grad_()
    task().training_step((leaf, masks), 0).backward()
    unlabelled = (masks == IGNORED)[:, None].expand_as(leaf)
    assert leaf.grad[unlabelled].count_nonzero() == 0
    assert leaf.grad[~unlabelled].count_nonzero() == (~unlabelled).sum()


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    logits = torch.randn(2, CLASSES, 3, 3, requires_grad=True)
    loss = task().training_step((logits, torch.full((2, 3, 3), IGNORED)), 0)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_it_says_what_it_logs_and_how_it_answers():
    assert set(task().logged) == {f"{stage}/{name}" for stage in ("val", "test") for name in ("miou", "acc", "loss")}
    assert Segmentation.answers == "masks"
    assert task().hparams["num_classes"] == CLASSES


def test_the_ignored_label_may_be_no_class():
    with pytest.raises(ValueError, match="ignore_index must not be one of the 4 labels, got 3"):
        task(ignore_index=3)
