"""What bench.py's parts share: contenders that take turns, and the rows of its table."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = "s CPU"


@dataclass(frozen=True)
class Row:
    """One goal's measurement.

    Args:
        goal: its number.
        what: what was measured.
        ours: dlzoo's figure.
        peer: the other's; None where there is no other.
        unit: of both.
        value: what the bound is about: a ratio, a difference, or `ours`.
        bound: such as ">= 2.5" or "<= 0.35"; "" where the row only informs.
    """

    goal: str
    what: str
    ours: float
    peer: float | None
    unit: str
    value: float
    bound: str

    @property
    def met(self) -> bool | None:
        """Whether the value keeps the bound; None without one."""
        if not self.bound:
            return None
        sign, limit = self.bound.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)

    def cells(self) -> list[str]:
        """As the table shows it."""
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        peer = "" if self.peer is None else number(self.peer)
        return [self.goal, self.what, number(self.ours), peer, self.unit, number(self.value), self.bound, verdict]


def faster(goal: str, what: str, ours: float, peer: float, unit: str, bound: str = "") -> Row:
    """A row about how many times less time, or more work in a time, is ours: its value is above 1 where we win."""
    ratio = ours / peer if unit.endswith("/s") else peer / ours
    return Row(goal, what, ours, peer, unit, ratio, bound)


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.4f}"


def table(rows: list[Row]) -> str:
    """Columns that line up."""
    cells = [["goal", "what", "ours", "peer", "unit", "value", "bound", ""], *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def take_turns(contenders: dict[str, Callable[[], float | None]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each contender, after a round to warm up.

    Args:
        contenders: name -> what to time; one that measures itself returns its own seconds.
        repeats: rounds; each begins with another contender, so that none always follows the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(-1, repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.process_time()
            own = contenders[name]()
            if turn >= 0:
                seconds[name].append(time.process_time() - started if own is None else own)
    return {name: statistics.median(values) for name, values in seconds.items()}
