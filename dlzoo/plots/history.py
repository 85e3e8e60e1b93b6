"""The numbers that a run logged, read back for drawing."""

import csv
from pathlib import Path


def read_metrics(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """metrics.csv as metric -> (steps, values); {} where there is no file yet."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    if not path.is_file():
        return found
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch", "seconds"):
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(float(row["step"]))
                    values.append(float(value))
    return found
