"""From one sentence to another: translation."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from dlzoo.data.pair_batches import PairBatch
from dlzoo.data.sentences import BEGIN, END, PADDING
from dlzoo.ops.search import write
from dlzoo.tasks.language_modeling import Perplexity
from dlzoo.tasks.supervised import Supervised
from dlzoo.tasks.translation_metrics import BLEU, CHRF

__all__ = ["Seq2Seq"]

SHOWN = 8  # sentences of an evaluation, its first ones, for the run report


class Seq2Seq(Supervised):
    """Trains any network that reads one sentence and writes another, and measures its translations.

    Args:
        net: source (B, S) and target (B, T) -> logits of the token after each, (B, T, V); and a `Writer` (`dlzoo.ops.search`),
            for what it writes on its own. Its `align`, of the same two, says where it looked: (B, T, S).
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the schedule from the optimizer and the number of steps; it is stepped every batch.
        label_smoothing: weight of the uniform distribution in the training target.
        measured: sentences of the validation split, its first ones, that are translated at each validation, greedily. 0: none
            there, nor in the test, which otherwise translates all.
        beams: sequences that the search in the test goes on with; 1 is greedy search.
        alpha: of the length penalty of that search.
        max_length: tokens that a translation has at most.
        decay_norms_and_biases: False keeps the optimizer's weight decay to the weights: see `optim.groups`.

    Batch:
        `PairBatch`: source (B, S), target (B, T + 1), predicted (), tokens a rank predicts on average, index (B,).

    Logs:
        {val,test}/loss, the mean over target tokens with their end, in nats; {val,test}/ppl, the perplexity, its exponential;
        {val,test}/bleu and {val,test}/chrf of the text that is written against the datamodule's references. The training loss
        is the step's result: the run report logs its mean.

    Raises:
        ValueError: label_smoothing outside 0 to 1, measured below 0, beams or max_length below 1.
        ConfigError: sacrebleu is not installed.
    """

    answers = "translation"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        *,
        label_smoothing: float = 0.1,
        measured: int = 1_014,
        beams: int = 5,
        alpha: float = 0.6,
        max_length: int = 100,
        decay_norms_and_biases: bool = True,
    ) -> None:
        super().__init__(net, optimizer, scheduler, decay_norms_and_biases)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
        for name, value, least in (("measured", measured, 0), ("beams", beams, 1), ("max_length", max_length, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.save_hyperparameters(ignore=["net", "optimizer", "scheduler"])  # plain numbers: a checkpoint holds no code
        self.label_smoothing, self.measured, self.max_length = label_smoothing, measured, max_length
        self.search = {"val": (1, 0.0), "test": (beams, alpha)}
        for stage in self.search:
            self.metrics[f"{stage}_loss"] = MeanMetric(nan_strategy="disable")  # a NaN has to be seen
            self.metrics[f"{stage}_ppl"] = Perplexity()
            if measured:
                self.metrics[f"{stage}_bleu"] = BLEU()
                self.metrics[f"{stage}_chrf"] = CHRF()

    @property
    def signatures(self) -> dict[str, str]:
        """What sacrebleu says of each figure that it has made, and how what it measured was found."""
        found = {}
        for stage, (beams, alpha) in self.search.items():
            how = "greedy" if beams == 1 else f"beam:{beams}|alpha:{alpha}"
            for name in ("bleu", "chrf") if self.measured else ():
                if signature := self.metrics[f"{stage}_{name}"].signature:
                    found[f"{stage}/{name}"] = f"{signature}|{how}"
        return found

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        # not the mean of this rank's tokens: the gradients of the ranks are averaged, and one may have more tokens than another
        return self._losses(batch, "sum", self.label_smoothing) / batch.predicted

    def _losses(self, batch: PairBatch, reduction: str = "none", label_smoothing: float = 0.0) -> Tensor:
        """Of each token of the target, 0 of what fills up: (B * T,); or their sum."""
        logits, y = self.net(batch.source, batch.target[:, :-1]), batch.target[:, 1:]
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            y.flatten(),
            ignore_index=PADDING,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )

    def _evaluate(self, batch: PairBatch, stage: str) -> dict[str, Tensor]:
        losses = self._losses(batch)[batch.target[:, 1:].flatten() != PADDING]
        for name in ("loss", "ppl"):
            self.metrics[f"{stage}_{name}"].update(losses)
        outputs = {}
        if self.measured:
            # on all ranks, whatever there is to translate: a strategy that shares the weights gathers them once for the whole
            # search, in which each rank takes a number of steps of its own
            with getattr(self.trainer.strategy, "whole", nullcontext)(self.net):
                outputs = self._translate(batch, stage)
        for name in ("loss", "ppl", "bleu", "chrf"):
            if f"{stage}_{name}" in self.metrics:
                metric = self.metrics[f"{stage}_{name}"]
                # the run report hands them to the loggers, with the training loss, on one count of steps
                self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, logger=False, batch_size=len(batch.index))
        return outputs

    def _translate(self, batch: PairBatch, stage: str) -> dict[str, Tensor]:
        """Measures what the network writes; returns its work on the first sentences of the split, for the run report."""
        data = self.trainer.datamodule
        chosen = batch.index < self.measured if stage == "val" else batch.index >= 0
        source, index = batch.source[chosen], batch.index[chosen]
        if not len(index):
            return {}
        tokens, _ = write(self.net, source, BEGIN, END, self.max_length, *self.search[stage])
        written = [data.sentences(data.target).decode(row) for row in tokens.tolist()]
        references = data.references(stage)
        references = [references[at] for at in index.tolist()]
        for name in ("bleu", "chrf"):
            self.metrics[f"{stage}_{name}"].update(written, references)
        first = index < SHOWN
        if not first.any():
            return {}
        source, tokens = source[first], tokens[first]
        begun = F.pad(tokens[:, :-1], (1, 0), value=BEGIN)
        return {"shown": index[first], "source": source, "written": tokens, "looks": self.net.align(source, begun)}
