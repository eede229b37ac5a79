"""What was measured: accuracies task by task with the protocol behind them, intervals, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kshot.errors import ConfigError, DataError
from kshot.files import write_json
from kshot.learners.base import Statistics


@dataclass(frozen=True)
class Protocol:
    """What a number was measured on; two results with equal protocols were measured on the same tasks, in pairs.

    within_groups: whether the classes of a task came from one group, where that was not as the split itself says; None
        where it was.
    """

    dataset: str
    split: str
    ways: int
    shots: int
    queries: int
    tasks: int
    seed: int
    statistics: Statistics
    within_groups: bool | None = None

    @property
    def drawn(self) -> str:
        """How the classes of a task were drawn, in words, where that was not as the split itself says."""
        return {None: "", True: ", each within one group", False: ", across groups"}[self.within_groups]

    def __str__(self) -> str:
        return (
            f"{self.ways}-way {self.shots}-shot, {self.queries} queries a class, {self.tasks} tasks of "
            f"{self.dataset}/{self.split}{self.drawn}, {self.statistics} statistics, seed {self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracies (tasks,) float64 in 0..1, one a task in the order of task numbers, and how they came about.

    adaptation: how tasks were learnt, name and options; own_adaptation says whether that is the learner's own way.
    precision: what the backbone computed in.
    weights: what identifies the checkpoint that was measured; None for a learner that came from none.
    groups: the group (alphabet, superclass, domain) of each task's classes; None where tasks mix groups.
    """

    learner: str
    adaptation: str
    protocol: Protocol
    accuracies: NDArray[np.float64]
    seconds: float
    own_adaptation: bool = True
    precision: Literal["float32", "bf16"] = "float32"
    weights: str | None = None
    groups: Sequence[str] | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over tasks, 0..1."""
        return float(self.accuracies.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95% confidence interval of the mean over tasks."""
        return interval(self.accuracies)

    def by_group(self) -> dict[str, Evaluation]:
        """The tasks of each group as a result of their own, in the order of names; empty where tasks mix groups."""
        names = np.asarray(self.groups or [])
        parts = {}
        for name in sorted(set(self.groups or [])):
            accuracies = self.accuracies[names == name]
            protocol = replace(self.protocol, tasks=len(accuracies))
            parts[name] = replace(self, protocol=protocol, accuracies=accuracies, groups=None)
        return parts

    def __str__(self) -> str:
        return f"{self.learner}: {100 * self.mean:.2f} ± {100 * self.ci95:.2f} % ({self.protocol})"

    def save(self, folder: Path) -> Path:
        """Write everything, the accuracy of each task included, to a JSON file in `folder`; returns its path.

        ConfigError where it cannot be written; an earlier file is then untouched.
        """
        at = self.protocol
        name = f"{at.split}-{at.ways}way-{at.shots}shot-{at.queries}query-{at.tasks}tasks-seed{at.seed}"
        drawn = {None: "", True: "-within", False: "-across"}[at.within_groups]
        path = folder / f"{name}{drawn}-{self.adaptation}-{at.statistics}-{self.precision}.json"
        content = asdict(self) | {"mean": self.mean, "ci95": self.ci95, "accuracies": self.accuracies.tolist()}
        try:
            write_json(path, content)
        except OSError as error:
            raise ConfigError(
                f"the evaluation {path} cannot be written ({error}); free some space, or choose a folder that can be"
            ) from error
        return path

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote; DataError where the file is not such a result."""
        try:
            content = json.loads(Path(path).read_text())
            known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
            accuracies = np.asarray(content["accuracies"], np.float64)
            return cls(**known | {"protocol": Protocol(**content["protocol"]), "accuracies": accuracies})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not an evaluation that kshot wrote ({error}); evaluate the run again"
            ) from error


@dataclass(frozen=True)
class Difference:
    """Mean over tasks of accuracy(first) - accuracy(second) on the same tasks, and its 95% half-width."""

    mean: float
    ci95: float

    def __str__(self) -> str:
        return f"{100 * self.mean:+.2f} ± {100 * self.ci95:.2f} points, paired over the same tasks"


def interval(values: NDArray[np.float64]) -> float:
    """Half-width of the 95% confidence interval of a mean, by Student's t; nan for fewer than two values."""
    count = len(values)
    if count < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))


def compare(first: Evaluation, second: Evaluation) -> Difference:
    """The paired difference of two results; ConfigError where they were not measured on the same tasks."""
    own, other = (asdict(result.protocol) | {"statistics": ""} for result in (first, second))
    differing = [name for name in own if own[name] != other[name]]
    if differing:
        raise ConfigError(
            f"{first.learner} and {second.learner} were measured on different tasks (they differ in "
            f"{', '.join(differing)}); evaluate both with the same options"
        )
    difference = first.accuracies - second.accuracies
    return Difference(float(difference.mean()), interval(difference))


def over_seeds(results: Sequence[Evaluation]) -> tuple[float, float]:
    """Mean and 95% half-width over several trainings of one learner: each training's mean is one observation."""
    means = np.asarray([result.mean for result in results])
    return float(means.mean()), interval(means)
