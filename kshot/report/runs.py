"""What a run folder holds, for those who read it: configuration, evaluations, and the curves of training."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot import recipes
from kshot.errors import CheckpointError, DataError
from kshot.files import checksum
from kshot.recipes import Published
from kshot.report.tables import Row
from kshot.results import Evaluation
from kshot.training.runs import free_on_resume, read_config


def read_metrics(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's metrics.csv, one value an epoch; DataError where there is no epoch yet."""
    return _read_columns(run / "metrics.csv")


def read_timing(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a run's timing.csv, one value an epoch; DataError where there is no epoch yet."""
    return _read_columns(run / "timing.csv")


def _read_columns(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.asarray([row[name] or "nan" for row in rows], np.float64) for name in (rows or [{}])[0]}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); train the run first") from error
    if not rows:
        raise DataError(f"{path} holds no epoch yet; let the run train for one")
    return columns


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


def row_of(name: str, config: Mapping[str, Any], results: Sequence[Evaluation]) -> Row:
    """The row of a run of this configuration in a table, with what papers report for it."""
    groups = [
        {group: value for group in set(result.groups or ()) if (value := published_for(config, result, group))}
        for result in results
    ]
    return Row(name, results, [published_for(config, result) for result in results], groups)


def published_for(config: Mapping[str, Any], result: Evaluation, group: str | None = None) -> Published | None:
    """What a paper reports for this learner and backbone on tasks of this kind, or None.

    group: the domain of a mixture whose tasks alone count.

    The published values are those of each learner's own adaptation and of the dataset's own tasks, so there is none
    beside another adaptation, or where `within_groups` was chosen.
    """
    at = result.protocol
    if (
        not result.own_adaptation
        or at.within_groups is not None
        or at.split != "test"
        or at.dataset != config["data"]["name"]
    ):
        return None
    learner = recipes.learner_in_papers(config["learner"], at.dataset)
    backbone = recipes.backbone_in_papers(config["backbone"])
    if learner is None or backbone is None:
        return None
    dataset = at.dataset if group is None else f"{at.dataset}/{group}"
    return recipes.published(dataset, at.ways, at.shots, learner, backbone, at.statistics)


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
