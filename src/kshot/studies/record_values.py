"""Values of the records in results/: typed in once, or read from what an experiment wrote.

A number that was written down by hand is ``{"mean": 64.6, "ci95": 9.3, "digits": 1}``. One that `kshot theory NAME
--out FOLDER` measured stays in the file that the command wrote, and the record says where it stands:

    {"from": "depth/closeness-depth.csv", "row": {"depth": 10}, "column": "distance", "digits": 2}
    {"from": "depth/closeness-depth.json", "after": "which is "}

The first is a line of a table, with the interval in the column next to it (``distance_ci95``). If several lines match,
``"take": "largest"`` chooses among them; ``"over": {...}`` divides by a second such number. The second is the number
that follows these words in the verdict.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kshot.errors import DataError
from kshot.files import read_json, read_text

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?: ± \d+(?:\.\d+)?)?")


def value_text(value: Any, section: Path) -> str:
    """A value as a page shows it: text as it is, numbers with their digits and their interval.

    Parameters
    ----------
    value
        Text, a whole number, or a mapping, as above; ``"signed": true`` shows the plus, ``"scientific": true`` powers
        of ten, and ``"unit"`` follows the number.
    section
        Folder that the files of experiments are named from.

    Raises
    ------
    DataError
        If the file of an experiment does not have what the value names.
    """
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, Mapping):
        return str(value)
    if "after" in value:
        return _after(section / value["from"], value["after"])
    digits, sign = value["digits"], "+" if value.get("signed") else ""
    mean, ci95 = _measured(value, section) if "from" in value else (value["mean"], value.get("ci95"))
    if value.get("scientific"):
        digit, _, power = f"{mean:{sign}.{digits}e}".partition("e")
        return f"{digit}e{int(power)}" if mean else "0"
    if "from" in value:
        mean = round(mean, digits) + 0  # what is nearly no change is not shown as -0.000
    text = f"{mean:{sign},.{digits}f}"
    return (text if ci95 is None else f"{text} ± {ci95:.{digits}f}") + value.get("unit", "")


def _measured(value: Mapping[str, Any], section: Path) -> tuple[float, float | None]:
    """Mean and half-width of the interval of a number in the table of an experiment."""
    path, column = section / value["from"], value["column"]
    rows = [row for row in _rows(path) if all(row.get(name) == str(cell) for name, cell in value["row"].items())]
    if not rows or any(column not in row for row in rows):
        raise DataError(f"{path} has no {column} in a row with {value['row']}")
    if len(rows) > 1 and value.get("take") != "largest":
        raise DataError(f"{path} has {len(rows)} rows with {value['row']}; name one, or take the largest")
    row = max(rows, key=lambda row: float(row[column]))
    mean = float(row[column])
    if "over" in value:
        return mean / _measured(value["over"], section)[0], None
    ci95 = float(row.get(f"{column}_ci95") or "nan") if value.get("interval", True) else math.nan
    return mean, None if math.isnan(ci95) else ci95


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(read_text(path).splitlines()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); put it back from the repository's history") from error


def _after(path: Path, words: str) -> str:
    """The number that follows these words in a verdict."""
    try:
        verdict = read_json(path)["verdict"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); put it back from the repository's history") from error
    found = _NUMBER.match(verdict.partition(words)[2])
    if not found:
        raise DataError(f"the verdict of {path} has no number after {words!r}")
    return found[0]
