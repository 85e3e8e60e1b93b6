"""Language modelling: the next token of a text."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric

from dlzoo.data.streams import generator
from dlzoo.data.token_batches import NOTHING
from dlzoo.ops.next_token import draw
from dlzoo.tasks.supervised import Supervised

__all__ = ["BitsPerCharacter", "LanguageModeling", "Perplexity"]


class LanguageModeling(Supervised):
    """Trains any network that gives, at each place of a text, logits of the next token.

    Args:
        net: (B, T) -> (B, T, V), logits; at place t it has seen the tokens 0 to t and no later one.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the schedule from the optimizer and the number of steps; it is stepped every batch.
        label_smoothing: weight of the uniform distribution in the training target.
        sample_length: tokens that the network adds to the first window of each validation and test, for the run report; it
            draws them from what it predicts. 0 is off.
        decay_norms_and_biases: False keeps the optimizer's weight decay to the weights: see `optim.groups`.
        seed: of those draws, which are a pure function of (seed, epoch).

    Batch:
        (x, y) with x and y of shape (B, T), tokens; y is NOTHING where nothing is to be predicted.

    Logs:
        {val,test}/loss, the mean over predicted tokens, in nats; {val,test}/ppl, the perplexity, its exponential;
        {val,test}/bpc, bits per character of text: all tokens' losses over the characters that they stand for, so that
        tokenizers can be compared. The training loss is the step's result: the run report logs its mean.

    Raises:
        ValueError: label_smoothing outside 0 to 1, or a negative sample_length.
    """

    answers = "text"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        *,
        label_smoothing: float = 0.0,
        sample_length: int = 200,
        decay_norms_and_biases: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(net, optimizer, scheduler, decay_norms_and_biases)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
        if sample_length < 0:
            raise ValueError(f"sample_length must be 0 or above, got {sample_length}")
        self.save_hyperparameters(ignore=["net", "optimizer", "scheduler"])  # plain numbers: a checkpoint holds no code
        self.label_smoothing, self.sample_length, self.seed = label_smoothing, sample_length, seed
        self._characters: Tensor | None = None
        for stage in ("val", "test"):
            self.metrics[f"{stage}_loss"] = MeanMetric(nan_strategy="disable")  # a NaN has to be seen
            self.metrics[f"{stage}_ppl"] = Perplexity()
            self.metrics[f"{stage}_bpc"] = BitsPerCharacter()

    def setup(self, stage: str) -> None:
        # of loaders without a datamodule nothing is known: there each token counts as one character
        counts = getattr(self.trainer.datamodule, "characters", None)
        self._characters = None if counts is None else torch.as_tensor(counts)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(
            self.net(x).float().flatten(0, 1), y.flatten(), ignore_index=NOTHING, label_smoothing=self.label_smoothing
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "val") | self._sampled(batch, batch_idx)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, "test") | self._sampled(batch, batch_idx)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> dict[str, Tensor]:
        x, y = batch
        losses = F.cross_entropy(self.net(x).float().flatten(0, 1), y.flatten(), ignore_index=NOTHING, reduction="none")
        predicted = y.flatten() != NOTHING
        losses, characters = losses[predicted], predicted.sum()
        if self._characters is not None:
            self._characters = self._characters.to(y.device)
            characters = self._characters[y.flatten()[predicted]].sum()
        self.metrics[f"{stage}_loss"].update(losses)
        self.metrics[f"{stage}_ppl"].update(losses)
        self.metrics[f"{stage}_bpc"].update(losses, characters)
        for what in ("loss", "ppl", "bpc"):
            # the run report hands them to the loggers, with the training loss, on one count of steps
            metric = self.metrics[f"{stage}_{what}"]
            self.log(f"{stage}/{what}", metric, on_step=False, on_epoch=True, logger=False, batch_size=len(y))
        return {}

    def _sampled(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The first window of an evaluation and what the network adds to it, for the run report. Every rank does it: of a
        network that is sharded, all have to."""
        if batch_idx or not self.sample_length:
            return {}
        random = generator("sample", self.seed, self.current_epoch)
        window = batch[0][:1]
        drawn = []
        for _ in range(self.sample_length):
            token = draw(self.net(window)[:, -1].cpu(), random)
            drawn.append(token)
            # of one length throughout: a compiled network is compiled once
            window = torch.cat([window[:, 1:], token[None].to(window.device)], dim=1)
        return {"prompt": batch[0][0], "sample": torch.cat(drawn)}


class Perplexity(MeanMetric):
    """The exponential of the mean loss."""

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")

    def compute(self) -> Tensor:
        return super().compute().exp()


class BitsPerCharacter(Metric):
    """All losses together, in bits, over the characters of text that were predicted."""

    nats: Tensor
    characters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("characters", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")  # fp32 stops at 16 million

    def update(self, losses: Tensor, characters: Tensor) -> None:
        """Adds a batch.

        Args:
            losses: of its tokens, in nats.
            characters: how many those tokens stand for.
        """
        self.nats += losses.sum()
        self.characters += characters

    def compute(self) -> Tensor:
        return self.nats / (math.log(2) * self.characters)
