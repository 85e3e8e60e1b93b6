"""Classification: one label for each input."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from dlzoo.data.streams import generator
from dlzoo.tasks.supervised import Supervised

TOP5_FROM = 20  # classes; with fewer, the right one is among five too easily to tell anything


class Classification(Supervised):
    """Trains any network that maps a batch to logits.

    Args:
        net: (B, ...) -> (B, num_classes), logits.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the schedule from the optimizer and the number of steps; it is stepped every batch.
        num_classes: number of labels.
        label_smoothing: weight of the uniform distribution in the training target. Szegedy et al. 2015, section 7.
        mixup: alpha of MixUp's Beta distribution; 0 is off. Zhang et al. 2017, arXiv 1710.09412.
        cutmix: alpha of CutMix's; 0 is off. With both on, each batch draws one. Yun et al. 2019, arXiv 1905.04899.
        mirror_test: the test averages the logits of each image and of its mirror image.
        decay_norms_and_biases: False keeps the optimizer's weight decay to the weights: see `optim.groups`.
        seed: of the mixing, which is a pure function of (seed, epoch, batch).

    Batch:
        (x, y) with y of shape (B,), integers below num_classes.

    Logs:
        {val,test}/loss, {val,test}/acc, with 20 classes or more {val,test}/acc_top5. The training loss is the step's result:
        the run report logs its mean, so that no step waits for a number.

    Raises:
        ValueError: label_smoothing outside 0 to 1, or a negative alpha.
    """

    answers = "labels"

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler],
        *,
        num_classes: int,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mirror_test: bool = False,
        decay_norms_and_biases: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(net, optimizer, scheduler, decay_norms_and_biases)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")
        if mixup < 0 or cutmix < 0:
            raise ValueError(f"mixup and cutmix must be 0 or above, got {mixup} and {cutmix}")
        self.save_hyperparameters(ignore=["net", "optimizer", "scheduler"])  # plain numbers: a checkpoint holds no code
        self.label_smoothing = label_smoothing
        self.mirror_test = mirror_test
        self.seed = seed
        self.mixers = _mixers(mixup, cutmix, num_classes)
        names = {"acc": 1, "acc_top5": 5} if num_classes >= TOP5_FROM else {"acc": 1}
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_{name}": MulticlassAccuracy(num_classes, top_k=k, average="micro")
                for stage in ("val", "test")
                for name, k in names.items()
            }
            | {f"{stage}_loss": MeanMetric(nan_strategy="disable") for stage in ("val", "test")}  # a NaN has to be seen
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = self._mix(*batch, batch_idx) if self.mixers else batch
        return F.cross_entropy(self.net(x).float(), y, label_smoothing=self.label_smoothing)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> dict[str, Tensor]:
        x, y = batch
        logits = self.net(x).float()
        if stage == "test" and self.mirror_test:
            logits = (logits + self.net(x.flip(-1)).float()) / 2
        losses = F.cross_entropy(logits, y, reduction="none")
        for name, metric in self.metrics.items():
            of, _, what = name.partition("_")
            if of == stage:
                metric.update(losses) if what == "loss" else metric.update(logits, y)
                # the run report hands them to the loggers, with the training loss, on one count of steps
                self.log(f"{stage}/{what}", metric, on_step=False, on_epoch=True, logger=False, batch_size=len(y))
        return {"logits": logits, "losses": losses}  # for the run report's pictures

    def _mix(self, x: Tensor, y: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        # torchvision draws from torch's own generator: lend it one that knows only seed, epoch and batch, then give it back
        seed = generator("mix", self.seed, self.current_epoch, batch_idx).initial_seed()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the GPU's own is left alone
            mixer = self.mixers[int(torch.randint(len(self.mixers), ()))]
            return mixer(x, y)


def _mixers(mixup: float, cutmix: float, num_classes: int) -> list[nn.Module]:
    if not (mixup or cutmix):
        return []
    from torchvision.transforms import v2  # a second and a half to import: only for those who mix

    mixers = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    return mixers + ([v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else [])
