"""A series from a file of comma-separated values, on a regular grid of dates; what is wrong with it is told with its line."""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from dlzoo.data.columns import Columns
from dlzoo.errors import DataError, suggest

__all__ = ["Table", "carry", "read_series", "written"]

MISSING = {"", "na", "nan", "n/a", "null", "none", "-", "?"}
SPARSE = 0.5  # a grid of which less than this share is there has another step than was thought


@dataclass(frozen=True)
class Table:
    """A series: row n is at the date dates[0] + n * step.

    Args:
        dates: datetime64[s].
        values: the numbers, targets first; NaN where there is none.
        texts: column -> what stands in it.
        step: seconds from one row to the next.
        added: rows that the file does not have, all of them NaN.

    Shape:
        dates (N,), values (N, C), texts (N,) each.
    """

    dates: np.ndarray
    values: np.ndarray
    texts: dict[str, np.ndarray]
    step: int
    added: int = 0

    def __len__(self) -> int:
        return len(self.dates)


def read_series(path: Path, columns: Columns, step: int | None = None) -> Table:
    """Reads the columns of a CSV file. Rows that are left out are added, as missing values.

    Args:
        path: a text in UTF-8 with a line of names; values are separated by commas, semicolons or tabs.
        columns: which are read.
        step: seconds from one row to the next; None takes the commonest.

    Raises:
        DataError: no such file, no such column, a number or a date that can not be read, or dates that are not regular.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            found = csv.reader(file, delimiter=max(",;\t", key=head.count), strict=True)
            names = [name.strip() for name in next(found, [])]
            places = [_place(name, names, path) for name in columns.names]
            rows, lines = [], []
            for row in found:
                if not row:
                    continue
                if len(row) != len(names):
                    what = f"line {found.line_num} has {len(row)} values, and there are {len(names)} names"
                    raise DataError(what, where=str(path), fix="one value for each column; text with a comma in it in quotes")
                rows.append([row[place].strip() for place in places])
                lines.append(found.line_num)
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}", fix="a file of comma-separated values") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} is no table of text: {error}", where=str(path), fix="a CSV file in UTF-8") from error
    if len(rows) < 2:
        raise DataError(f"{path.name} has {len(rows)} rows", where=str(path), fix="a series has two at least")
    across = list(zip(*rows, strict=True))
    parts = len(columns.dates)
    dates = _dates(across[:parts], lines, path)
    numbers = columns.numbers
    read = [_numbers(name, across[parts + at], lines, path) for at, name in enumerate(numbers)]
    texts = {name: np.array(across[parts + len(numbers) + at], dtype=object) for at, name in enumerate(columns.texts)}
    return _on_a_grid(Table(dates, np.stack(read, 1), texts, step or 0), lines, path)


def _place(name: str, names: list[str], path: Path) -> int:
    if name not in names:
        known = f"it has {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        raise DataError(f"{path.name} has no column {name!r}", where=str(path), fix=suggest(name, names) or known)
    return names.index(name)


def _dates(parts: list[tuple[str, ...]], lines: list[int], path: Path) -> np.ndarray:
    """The dates of all rows: (N,), each later than the one before."""
    dates = []
    for line, words in zip(lines, zip(*parts, strict=True), strict=True):
        try:
            dates.append(datetime.fromisoformat(words[0]) if len(words) == 1 else datetime(*map(int, words)))
        except ValueError as error:
            what = f"line {line}: {' '.join(words)!r} is no date"
            raise DataError(what, where=str(path), fix="dates such as 2016-07-01 or 2016-07-01 13:00:00") from error
        if dates[-1].tzinfo is not None:
            what = f"line {line}: {words[0]!r} has a time zone"
            raise DataError(what, where=str(path), fix="dates without one, all in the same time")
    found = np.array(dates, dtype="datetime64[s]")
    back = np.flatnonzero(found[1:] <= found[:-1])
    if len(back):
        at = int(back[0]) + 1
        what = f"line {lines[at]}: {dates[at]} does not come after {dates[at - 1]}"
        raise DataError(what, where=str(path), fix="one row for each date, the earliest first")
    return found


def _numbers(name: str, words: tuple[str, ...], lines: list[int], path: Path) -> np.ndarray:
    """A column as numbers, NaN where the value is missing: (N,)."""
    values = np.empty(len(words))
    for at, word in enumerate(words):
        try:
            values[at] = np.nan if word.lower() in MISSING else float(word)
        except ValueError:
            values[at] = np.inf
        if np.isinf(values[at]):
            what = f"line {lines[at]}: {name} is {word!r}, which is no number"
            raise DataError(what, where=str(path), fix="numbers such as 3.5; NA, or nothing, where there is none")
    return values


def _on_a_grid(table: Table, lines: list[int], path: Path) -> Table:
    """The table with a row for each date of the grid."""
    apart = np.diff(table.dates).astype(np.int64)
    lengths, counts = np.unique(apart, return_counts=True)
    step = table.step or int(lengths[counts.argmax()])
    since = (table.dates - table.dates[0]).astype(np.int64)
    off = np.flatnonzero(since % step)
    size = int(since[-1]) // step + 1
    if len(off) or len(table) < SPARSE * size:
        at = int(off[0]) if len(off) else int(apart.argmax()) + 1
        day, before = (str(table.dates[row]).replace("T", " ") for row in (at, at - 1))
        raise DataError(
            f"line {lines[at]}: {day} comes {apart[at - 1]:,} s after {before}, and the series goes on in steps of {step:,} s",
            where=str(path),
            fix="a row for each step; one that is missing may be left out, one between two steps may not be there",
        )
    if size == len(table):
        return Table(table.dates, table.values, table.texts, step)
    rows = since // step
    values = np.full((size, table.values.shape[1]), np.nan)
    values[rows] = table.values
    texts = {}
    for name, words in table.texts.items():
        texts[name] = np.full(size, "", dtype=object)
        texts[name][rows] = words
    dates = table.dates[0] + np.arange(size) * np.timedelta64(step, "s")
    return Table(dates, values, texts, step, added=size - len(table))


def carry(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Missing values filled with the last one that is known, or with `first` where none was before: (N, C), (C,) -> (N, C)."""
    known = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), axis=0)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), first)


def written(date: np.datetime64, columns: Columns, step: int) -> list[str]:
    """A date as its columns have it: a text without the time where a step is whole days, or year, month, day and hour."""
    day = date.item()
    if len(columns.dates) == 4:
        return [str(part) for part in (day.year, day.month, day.day, day.hour)]
    return [day.date().isoformat() if step % 86_400 == 0 and day.time() == datetime.min.time() else day.isoformat(" ")]
