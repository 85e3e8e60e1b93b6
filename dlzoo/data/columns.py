"""Which columns of a table make a series: its dates, what is forecast, and what else a network is shown. No heavy import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CALENDAR", "COMPASS", "Columns", "width"]

# what a date tells, as a sine and a cosine each: the seconds of one turn, and the name
CALENDAR = {"hour": 86_400.0, "weekday": 7 * 86_400.0, "yearday": 365.2425 * 86_400.0}
COMPASS = "compass"  # of a column of texts: points of the compass
POINTS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
CALM = ("cv", "calm", "var", "")  # winds of no direction


def width(
    targets: Sequence[str], inputs: Sequence[str], texts: Mapping[str, Any], masks: Sequence[str], calendar: Sequence[str]
) -> int:
    """How many numbers a network is shown of each step.

    Args: see `Columns`.
    """
    words = sum(2 if kind == COMPASS else len(kind) for kind in texts.values())
    return len(targets) + len(inputs) + words + len(masks) + 2 * len(calendar)


@dataclass(frozen=True)
class Columns:
    """The columns of a table, in the order in which a network is shown them.

    Args:
        dates: the column of the date, or four of year, month, day and hour.
        targets: what is forecast; numbers.
        inputs: further numbers.
        texts: column -> "compass" for directions of the wind, or the words that stand in it, one number each.
        masks: targets and inputs for which a number says whether the value is known.
        calendar: of "hour", "weekday" and "yearday".

    Raises:
        ValueError: no target, a column that is named twice, a mask of a column that is none of the numbers, another calendar.
    """

    dates: Sequence[str]
    targets: Sequence[str]
    inputs: Sequence[str] = ()
    texts: Mapping[str, Any] = field(default_factory=dict)
    masks: Sequence[str] = ()
    calendar: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.dates) not in (1, 4):
            raise ValueError(f"dates must be one column, or those of year, month, day and hour, got {list(self.dates)}")
        if not self.targets:
            raise ValueError("targets must name a column")
        every = [*self.dates, *self.targets, *self.inputs, *self.texts]
        if len(set(every)) < len(every):
            raise ValueError(f"a column is named twice: {', '.join(sorted({name for name in every if every.count(name) > 1}))}")
        if other := set(self.masks) - set(self.numbers):
            raise ValueError(f"masks must be among targets and inputs, got {', '.join(sorted(other))}")
        if other := set(self.calendar) - set(CALENDAR):
            raise ValueError(f"calendar must be of {', '.join(CALENDAR)}, got {', '.join(sorted(other))}")
        for name, kind in self.texts.items():
            if kind != COMPASS and (isinstance(kind, str) or not kind):
                raise ValueError(f"texts.{name} must be compass or a list of words, got {kind!r}")

    @property
    def numbers(self) -> list[str]:
        """Targets, then inputs."""
        return [*self.targets, *self.inputs]

    @property
    def names(self) -> list[str]:
        """All that a table has to have."""
        return [*self.dates, *self.numbers, *self.texts]

    @property
    def width(self) -> int:
        """How many numbers a network is shown of each step."""
        return width(self.targets, self.inputs, self.texts, self.masks, self.calendar)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        texts = {name: kind if kind == COMPASS else list(kind) for name, kind in self.texts.items()}
        lists = {name: list(getattr(self, name)) for name in ("dates", "targets", "inputs", "masks", "calendar")}
        return lists | {"texts": texts}
