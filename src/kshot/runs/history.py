"""metrics.csv and timing.csv: one row per epoch, of which a resumed run repeats the first to the byte."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import CheckpointError, DataError
from kshot.files import write_text

TIMING = ("seconds", "validation_seconds", "tasks_per_second", "images_per_second")


def read_columns(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of metrics.csv or timing.csv, one value per epoch; DataError before the end of the first epoch."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.asarray([row[name] or "nan" for row in rows], np.float64) for name in (rows or [{}])[0]}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); train the run first") from error
    if not rows:
        raise DataError(f"{path} holds no epoch yet; let the run train for one")
    return columns


def write_history(run: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.csv, which a resumed run repeats to the byte, and timing.csv, which no run repeats.

    Both are written whole, so that neither a kill nor a full disk leaves half a line.
    """
    if not history:
        return
    metrics = [name for name in history[0] if name not in TIMING]
    try:
        write_text(run / "metrics.csv", _as_csv(history, metrics))
        write_text(run / "timing.csv", _as_csv(history, ["epoch", *TIMING]))
    except OSError as error:
        raise CheckpointError(
            f"the metrics of {run} could not be written ({error}); the checkpoints are intact: "
            f"free some space and resume the run"
        ) from error


def _as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
