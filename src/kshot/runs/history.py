"""metrics.csv and timing.csv: one row per epoch, of which a resumed run repeats the first to the byte."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import CheckpointError, DataError
from kshot.files import csv_text, read_text, refusal, write_text

TIMING = ("seconds", "validation_seconds", "tasks_per_second", "images_per_second")
_LARGEST = 1 << 26  # bytes
_SLACK = 1e-6  # a mean of float32 numbers may be this far above 1

Columns = dict[str, NDArray[np.float64]]


def read_columns(path: Path, required: Collection[str] = ("epoch",)) -> Columns:
    """The columns of metrics.csv or timing.csv, one value per epoch.

    Parameters
    ----------
    path
        The file.
    required
        Columns that it must have.

    Raises
    ------
    DataError
        Before the end of the first epoch, and if the file is damaged: no text, a column or a cell too few or too many,
        or a value that training cannot have written.
    """
    try:
        text = read_text(path, limit=_LARGEST)
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True) if text else [[]]
        fault = _fault(header, rows, required)
        values = [] if fault else [[_number(cell) for cell in row] for row in rows]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {refusal(error)}") from error
    except (ValueError, csv.Error) as error:
        raise damage(path, str(error)) from error
    if not rows:
        raise DataError(f"{path} holds no epoch yet; let the run train for one")
    if fault:
        raise damage(path, fault)
    columns = dict(zip(header, np.asarray(values, np.float64).T))
    faults = [fault for name, column in columns.items() if (fault := _out_of_range(name, column))]
    if faults:
        raise damage(path, "; ".join(faults))
    return columns


def damage(path: Path, fault: str) -> DataError:
    """The error for a damaged file."""
    return DataError(
        f"{path} is damaged ({fault}); resume the run, which writes it again from its checkpoint, or train it again"
    )


def _number(cell: str) -> float:
    """A cell as a number; ValueError for text, and for forms of numbers that Python does not write."""
    if cell != cell.strip() or "_" in cell:
        raise ValueError(f"{cell!r} is no number")
    return float(cell or "nan")


def _fault(header: Sequence[str], rows: Sequence[Sequence[str]], required: Collection[str]) -> str:
    """What is wrong with the shape of a table; empty if nothing is."""
    missing = [name for name in required if name not in header]
    if missing:
        return f"it has no column {', '.join(missing)}"
    if len(set(header)) < len(header):
        return "two columns have the same name"
    uneven = [number for number, row in enumerate(rows, 1) if len(row) != len(header)]
    return f"line {uneven[0] + 1} has not {len(header)} cells" if uneven else ""


def _out_of_range(name: str, column: NDArray[np.float64]) -> str:
    """What is wrong with the values of a column; empty if training can have written them."""
    if name == "epoch":
        return "" if (column == np.arange(1, len(column) + 1)).all() else "the epochs are not 1, 2, 3, ..."
    if name.startswith("validation_") and np.isnan(column).all():  # nothing was held out
        return ""
    most = 1 + _SLACK if name in ("accuracy", "validation_accuracy") else np.inf
    least = {"loss": -np.inf, "group_ari": -1.0}.get(name, 0.0)
    unmeasured = np.isnan(column) & (name == "validation_ci95")  # of one value there is no interval
    inside = np.isfinite(column) & (column >= least) & (column <= most) | unmeasured
    return "" if inside.all() else f"{name} is {column[~inside][0]} in epoch {np.flatnonzero(~inside)[0] + 1}"


def completed(path: Path, columns: Columns, history: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns, checked against the history that the last checkpoint holds, and with its latest epoch.

    The checkpoint is written first: a run that was killed in between has an epoch there that the file lacks. Raises
    DataError if the file says something else.
    """
    if not history:
        return columns
    known = {name: np.asarray([row[name] for row in history], np.float64) for name in columns if name in history[0]}
    for name, column in known.items():
        shared = min(len(column), len(columns[name]))  # a run that goes on at this moment has more epochs in its file
        if not np.array_equal(column[:shared], columns[name][:shared], equal_nan=True):
            raise damage(path, f"{name} is not what the last checkpoint says")
    return known if known.keys() == columns.keys() and len(history) > len(columns["epoch"]) else columns


def write_history(run: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.csv, which a resumed run repeats to the byte, and timing.csv, which no run repeats.

    Both are written whole, so that neither a kill nor a full disk leaves half a line.
    """
    if not history:
        return
    metrics = [name for name in history[0] if name not in TIMING]
    try:
        write_text(run / "metrics.csv", csv_text(history, metrics))
        write_text(run / "timing.csv", csv_text(history, ["epoch", *TIMING]))
    except OSError as error:
        raise CheckpointError(
            f"the metrics of {run} could not be written, and the checkpoints are intact: {refusal(error)}, and resume "
            f"the run"
        ) from error
