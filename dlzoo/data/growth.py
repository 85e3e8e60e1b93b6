"""Progressive resizing: small images in the first epochs, which are quick, and the full size at the end.

The size is a function of the epoch alone, so that a run which goes on after a stop sees the sizes that it would have seen.

Source: the idea is Karras et al. 2017, https://arxiv.org/abs/1710.10196, for generators, and fast.ai's for classifiers, Howard
    2018, https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html.
"""

from dataclasses import dataclass

__all__ = ["Growth"]

LARGE = 96  # sides from which steps are of 32 pixels, what a network with five halvings divides by


@dataclass(frozen=True)
class Growth:
    """The size of training images over the epochs: in equal steps up to the full size, and then that.

    Args:
        start: the first epoch's side, as a share of the full side; 1 is the full size throughout.
        epochs: before the first one of full size.

    Raises:
        ValueError: start is not in (0, 1], or epochs is negative; or one of them is set without the other.
    """

    start: float = 1.0
    epochs: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1 or self.epochs < 0:
            raise ValueError(f"grow_from must be in (0, 1] and grow_epochs at least 0, got {self.start} and {self.epochs}")
        if (self.start < 1) != (self.epochs > 0):
            raise ValueError(f"grow_from and grow_epochs go together, got {self.start} and {self.epochs}")

    def side(self, full: int, epoch: int) -> int:
        """The side in this epoch, a multiple of 4 (from 96 pixels on, of 32), unless it is the full one."""
        if epoch >= self.epochs:
            return full
        step = 32 if full >= LARGE else 4
        side = full * (self.start + (1 - self.start) * epoch / self.epochs)
        return min(full, max(step, step * round(side / step)))
