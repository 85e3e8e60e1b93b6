"""How near translations come to those of people: BLEU and chrF, as sacrebleu computes them.

Both are of a whole corpus, not means over sentences, so what is added up, over batches and over ranks, are the counts that
they are made of.

Source: Papineni et al. 2002, https://doi.org/10.3115/1073083.1073135; Popović 2015, https://doi.org/10.18653/v1/W15-3049;
Post 2018, https://arxiv.org/abs/1804.08771, on why a figure needs a signature.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dlzoo.errors import ConfigError

__all__ = ["BLEU", "CHRF"]

BETA = 2  # chrF: how much more recall counts
ORDERS = 6  # chrF: characters of the longest piece


class _OfACorpus(Metric):
    """A score of sacrebleu from counts."""

    counts: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self._signature = ""

    @property
    def signature(self) -> str:
        """All that the number depends on besides the sentences; "" before the first of them."""
        return self._signature

    def update(self, written: Sequence[str], references: Sequence[str]) -> None:
        """Adds translations.

        Args:
            written: by the network, as text.
            references: by people, one each.
        """
        if written:
            scorer, counts = self._count(list(written), list(references))
            self._signature = str(scorer.get_signature())
            self.counts += torch.tensor(counts, device=self.counts.device)

    def _count(self, written: list[str], references: list[str]) -> tuple[Any, list[int]]:
        raise NotImplementedError


class BLEU(_OfACorpus):
    """BLEU, 0 to 100: the geometric mean of how many runs of 1 to 4 words are right, cut where too little was written.

    Raises:
        ConfigError: sacrebleu is not installed.
    """

    def __init__(self) -> None:
        super().__init__(2 * 4 + 2)  # right and all runs of each length; words written, words of the references
        _library()

    def _count(self, written: list[str], references: list[str]) -> tuple[Any, list[int]]:
        scorer = _library().BLEU()
        score = scorer.corpus_score(written, [references])
        return scorer, [*score.counts, *score.totals, score.sys_len, score.ref_len]

    def compute(self) -> Tensor:
        right, total, lengths = (part.tolist() for part in self.counts.split([4, 4, 2]))
        score = _library().BLEU.compute_bleu(right, total, *lengths, smooth_method="exp")
        return torch.tensor(score.score)


class CHRF(_OfACorpus):
    """chrF2, 0 to 100: how many runs of 1 to 6 characters, without spaces, are right, and how many of the right ones are there.

    Raises:
        ConfigError: sacrebleu is not installed.
    """

    def __init__(self) -> None:
        super().__init__(3 * ORDERS)  # of each length: written, of the references, in both
        _library()

    def _count(self, written: list[str], references: list[str]) -> tuple[Any, list[int]]:
        # sacrebleu gives the score alone, so the counts are our own; a test holds the two together
        counts = [0] * (3 * ORDERS)
        for one, other in zip(written, references, strict=True):
            ours, theirs = ("".join(text.split()) for text in (one, other))
            for order in range(1, ORDERS + 1):
                found, right = _runs(ours, order), _runs(theirs, order)
                both = sum(min(count, right[run]) for run, count in found.items() if run in right)
                # of a reference with no such run, nothing written counts
                for at, count in enumerate((sum(found.values()) if right else 0, sum(right.values()), both)):
                    counts[3 * (order - 1) + at] += count
        scorer = _library().CHRF()
        scorer.corpus_score(written[:1], [references[:1]])  # it has no signature before
        return scorer, counts

    def compute(self) -> Tensor:
        counted = [(found, right, both) for found, right, both in self.counts.view(ORDERS, 3).tolist() if found and right]
        precision = sum(both / found for found, _, both in counted) / max(len(counted), 1)
        recall = sum(both / right for _, right, both in counted) / max(len(counted), 1)
        if not precision + recall:
            return torch.tensor(0.0)
        return torch.tensor(100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall))


def _runs(text: str, order: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(len(text) - order + 1):
        run = text[start : start + order]
        found[run] = found.get(run, 0) + 1
    return found


def _library() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise ConfigError("BLEU and chrF need the package sacrebleu", where="task", fix="pip install 'dlzoo[text]'") from error
    return sacrebleu.metrics
