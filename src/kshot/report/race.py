"""Which run was how good after how long: validation accuracy against the time of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from kshot.runs.config import read_config
from kshot.runs.readers import read_metrics, read_timing

_STEP = 5  # per cent between the accuracies whose times are told
_LEVELS = 6  # of them at most
_STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Pace:
    """Of each epoch of a run the end, in seconds of training, and the best validation accuracy by then, in per cent.

    image_seconds: of training, for each image that went through it, in the median epoch.
    """

    name: str
    seconds: NDArray[np.float64]
    best: NDArray[np.float64]
    image_seconds: float

    def time_to(self, accuracy: float) -> float:
        """Seconds of training until a validation found at least this accuracy; infinity where none did."""
        reached = self.best >= accuracy
        return float(self.seconds[reached][0]) if reached.any() else float("inf")


def paces_of(runs: Sequence[Path]) -> list[Pace]:
    """The paces of the runs that can be compared: whose validation tasks are like those of the first one of them.

    Left out are runs without validation accuracies, and TSA-MAML's, whose epochs come after hidden work.
    """
    found = [(pace, _validation(read_config(run))) for run in runs if (pace := _pace_of(run))]
    return [pace for pace, validation in found if validation == found[0][1]]


def _validation(config: Mapping[str, Any]) -> list[Any]:
    """What the validation tasks of a run are like."""
    options = config["training"]
    shape = [options[f"validation_{name}"] or options[name] for name in ("ways", "shots", "queries")]
    return [config["data"]["name"], *shape, options["within_domain"]]


def _pace_of(run: Path) -> Pace | None:
    if not (run / "timing.csv").exists() or (run / "stages.yaml").exists():
        return None
    accuracies = read_metrics(run).get("validation_accuracy", np.array([np.nan]))
    if np.isnan(accuracies).any():
        return None
    timing = read_timing(run)
    best = np.maximum.accumulate(100 * accuracies).round(6)  # or else 60 per cent are 60.000000001
    return Pace(run.name, timing["seconds"].cumsum(), best, float(1 / np.median(timing["images_per_second"])))


def levels(paces: Sequence[Pace]) -> list[int]:
    """The accuracies whose times are told, in per cent: multiples of five, up to the highest that a run reached."""
    lowest = math.ceil(min(pace.best[0] for pace in paces) / _STEP)
    highest = math.floor(max(pace.best[-1] for pace in paces) / _STEP)
    return [_STEP * number for number in range(lowest, highest + 1)][-_LEVELS:]


def time_columns(paces: Sequence[Pace]) -> dict[str, list[str]]:
    """A column a level with each run's minutes of training up to it, after the time for an image."""
    columns = {"": [pace.name for pace in paces], "ms an image": [f"{1e3 * p.image_seconds:.3f}" for p in paces]}
    for level in levels(paces):
        times = [pace.time_to(level) / 60 for pace in paces]
        columns[f"min to {level} %"] = [f"{time:.1f}" if np.isfinite(time) else "-" for time in times]
    return columns


def race_picture(paces: Sequence[Pace]) -> Figure:
    """The best validation accuracy so far against minutes of training, a line a run."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, pace in enumerate(paces):
        style = _STYLES[number // 10 % len(_STYLES)]  # ten colours
        axes.plot(pace.seconds / 60, pace.best, style, marker="o", ms=3, drawstyle="steps-post", label=pace.name)
    axes.set(xscale="log", xlabel="minutes of training, without validation", ylabel="best validation accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", lw=0.7)
    axes.legend(frameon=False, fontsize=8.5)
    return figure
