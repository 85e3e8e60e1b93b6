"""The mistakes a user can make, each with its exit code and one form of words.

A message says what happened, where, what is safe, and what to type instead; it needs no traceback. The exit codes are part of
the interface (scripts and SLURM jobs test them):

====  =========================================================  =====================
code  meaning                                                    class
====  =========================================================  =====================
0     done
1     a defect of dlzoo, or a sweep with failed trials
2     the config or the command line                             ConfigError
3     data: missing, corrupt, or not to be downloaded            DataError
4     numbers: a loss that is not finite, an export that differs NumericalError
5     memory                                                     OutOfMemoryError
6     no usable checkpoint                                       CheckpointError
7     storage: full, read-only                                   StorageError
8     the run directory is in use                                RunInUseError
9     refused as unsafe                                          UnsafeError
130   Ctrl-C
143   SIGTERM
====  =========================================================  =====================
"""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn


class DlzooError(Exception):
    """Something a user can put right.

    Args:
        what: one sentence that says what is wrong.
        where: the config key with its file and line, the override, the data file or the step.
        safe: what is not lost, where that is in question.
        fix: what to type or do instead; the line can be copied where it is a command.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", safe: str = "", fix: str = "") -> None:
        self.what, self.where, self.safe, self.fix = what, where, safe, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        labelled = (("where", self.where), ("safe", self.safe), ("try", self.fix))
        return "\n".join([self.what, *(f"  {label + ':':6} {text}" for label, text in labelled if text)])


class SweepError(DlzooError):
    """Some jobs of a sweep failed; the others have their results."""


class ConfigError(DlzooError):
    """The config or the command line: an unknown name, a wrong type, a value out of range, a package that is not installed."""

    exit_code = 2


class DataError(DlzooError):
    """Data that is missing, corrupt, or could not be downloaded."""

    exit_code = 3


class NumericalError(DlzooError):
    """A loss that is not finite, or an exported model that does not compute what the trained one does."""

    exit_code = 4


class OutOfMemoryError(DlzooError):
    """The device or the machine has too little memory."""

    exit_code = 5


class CheckpointError(DlzooError):
    """A checkpoint that is missing, damaged, or of another model."""

    exit_code = 6


class StorageError(DlzooError):
    """A full disk, or a directory that cannot be written."""

    exit_code = 7


class RunInUseError(DlzooError):
    """The run directory belongs to another run."""

    exit_code = 8


class UnsafeError(DlzooError):
    """Something that could run code or write outside its folder."""

    exit_code = 9


def suggest(name: str, known: Iterable[str]) -> str:
    """The known names nearest to `name`, as words for a message: "did you mean 'lr'?", or "" where none is near."""
    return did_you_mean(nearest(name, known))


def did_you_mean(names: Sequence[str]) -> str:
    """At most three names as a question; "" for none."""
    return f"did you mean {' or '.join(map(repr, names[:3]))}?" if names else ""


def nearest(name: str, known: Iterable[str], alike: bool = True) -> list[str]:
    """The known names one or two edits away; else those whose last part is the same (optimizer.max_epochs for
    trainer.max_epochs); else, if `alike`, those that look alike.
    """
    wanted, names = name.lower(), list(dict.fromkeys(known))
    limit = 1 if len(wanted) < 5 else 2
    near = sorted((edits, other) for other in names if (edits := _edits(wanted, other.lower(), limit)) <= limit)
    if near:
        return [other for edits, other in near if edits == near[0][0]]
    leaf = wanted.rpartition(".")[2]
    same = [other for other in names if other.lower().rpartition(".")[2] == leaf]
    if same or not alike:
        return same
    lowered = {other.lower(): other for other in names}
    return [lowered[match] for match in difflib.get_close_matches(wanted, lowered, n=3, cutoff=0.6)]


def _edits(one: str, other: str, limit: int) -> int:
    """How many letters lost, added, replaced or swapped lie between two words; limit + 1 where there are more."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, theirs in enumerate(other, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != theirs))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == theirs:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]


def polite(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Makes a parser raise ConfigError, with the nearest flag or choice, where it would print its usage and leave."""

    def error(message: str) -> NoReturn:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        choices = [str(choice) for action in parser._actions for choice in action.choices or ()]
        for word in re.findall(r"(?:invalid choice: |unrecognized arguments: |ambiguous option: )'?([^\s']+)", message):
            hint = suggest(word.partition("=")[0], flags if word.startswith("-") else choices)
            if hint:
                break
        else:
            hint = ""
        raise ConfigError(message, where=parser.prog, fix=hint or f"{parser.prog} --help")

    parser.error = error  # type: ignore[method-assign]
    return parser
