"""Which run was how good after how long: validation accuracy against the time of training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.report.content import RunContent

_STEP = 5  # per cent between the accuracies whose times are shown
_LEVELS = 6  # at most so many of them


@dataclass(frozen=True, eq=False)
class Pace:
    """How fast a run became how good.

    Attributes
    ----------
    name
        What the run is called.
    seconds
        Training time until the end of each epoch, (epochs,).
    best
        The best validation accuracy until then, in per cent, (epochs,).
    image_seconds
        Training time per image that went through the network, in the median epoch.
    """

    name: str
    seconds: NDArray[np.float64]
    best: NDArray[np.float64]
    image_seconds: float

    def time_to(self, accuracy: float) -> float:
        """Seconds of training until a validation found at least this accuracy; infinity if none did."""
        reached = self.best >= accuracy
        return float(self.seconds[reached][0]) if reached.any() else float("inf")


def races_of(contents: Sequence[RunContent]) -> list[list[Pace]]:
    """The paces of runs, in groups that can be compared: those of one group have the same kind of validation tasks.

    Runs without a validation accuracy in every epoch, or without timing, are left out.
    """
    races: dict[str, list[Pace]] = {}
    for content in contents:
        pace = _pace_of(content)
        if pace is not None:
            races.setdefault(json.dumps(_validation(content.config)), []).append(pace)
    return list(races.values())


def _validation(config: Mapping[str, Any]) -> list[Any]:
    """What the validation tasks of a run are like."""
    options = config["training"]
    shape = [options.get(f"validation_{name}") or options.get(name) for name in ("ways", "shots", "queries")]
    return [config["data"]["name"], *shape, options.get("within_domain")]


def _pace_of(content: RunContent) -> Pace | None:
    if content.timing is None or content.metrics is None:
        return None
    accuracies = content.metrics.get("validation_accuracy", np.array([np.nan]))
    if np.isnan(accuracies).any():
        return None
    best = np.maximum.accumulate(100 * accuracies).round(6)  # or else 60 per cent are 60.000000001
    seconds_per_image = float(1 / np.median(content.timing["images_per_second"]))
    return Pace(content.name, content.timing["seconds"].cumsum(), best, seconds_per_image)


def levels(paces: Sequence[Pace]) -> list[int]:
    """The accuracies whose times are shown, in per cent: multiples of five, up to the highest that a run reached."""
    lowest = math.ceil(min(pace.best[0] for pace in paces) / _STEP)
    highest = math.floor(max(pace.best[-1] for pace in paces) / _STEP)
    return [_STEP * number for number in range(lowest, highest + 1)][-_LEVELS:]


def time_columns(paces: Sequence[Pace]) -> dict[str, list[str]]:
    """Each run's time per image, and then one column per level with its minutes of training up to it."""
    columns = {"": [pace.name for pace in paces], "ms per image": [f"{1e3 * pace.image_seconds:.3f}" for pace in paces]}
    for level in levels(paces):
        times = [pace.time_to(level) / 60 for pace in paces]
        columns[f"min to {level} %"] = [f"{time:.1f}" if np.isfinite(time) else "-" for time in times]
    return columns
