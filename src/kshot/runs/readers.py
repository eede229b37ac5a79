"""What a run folder holds, for those who read it: the curves of training, and evaluations."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from kshot.errors import CheckpointError, DataError
from kshot.evaluation.results import Evaluation
from kshot.files import checksum, write_text
from kshot.runs.config import free_on_resume, read_config

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


def read_metrics(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's metrics.csv."""
    return read_columns(run / "metrics.csv")


def read_timing(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's timing.csv."""
    return read_columns(run / "timing.csv")


def weights_of(run: Path) -> str:
    """What identifies the weights of a run's best checkpoint; CheckpointError where there is none."""
    path = run / "checkpoints" / "best.pt"
    try:
        return checksum(path)[:16]
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}: train the run first, or check its name") from None


def save_evaluation(run: Path, result: Evaluation, weights: str) -> Path:
    """Write an evaluation of these weights, see `weights_of`, into the run folder; returns its path."""
    return replace(result, weights=weights).save(run / "evaluation")


def read_evaluations(run: Path) -> list[Evaluation]:
    """Every saved evaluation of the weights that are the run's best ones now, in the order of file names."""
    results = [Evaluation.load(path) for path in sorted((run / "evaluation").glob("*.json"))]
    weights = weights_of(run) if results else None
    return [result for result in results if result.weights == weights]


def groups_by_seed(runs: Sequence[Path]) -> list[list[int]]:
    """Positions of runs that differ in their training seed alone, for every such group of two seeds or more.

    Options that a continued run may change make no difference. Of several runs with one seed the first one counts.
    """
    groups: dict[str, dict[int, int]] = defaultdict(dict)
    for position, run in enumerate(runs):
        config = read_config(run)
        seed, ignored = config["training"]["seed"], {"seed", *free_on_resume(config["training"])}
        config["training"] = {name: value for name, value in config["training"].items() if name not in ignored}
        groups[json.dumps(config, sort_keys=True)].setdefault(seed, position)
    return [list(members.values()) for members in groups.values() if len(members) > 1]


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml."""
    write_text(run / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


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
