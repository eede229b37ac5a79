"""What was measured: a value a task with the protocol behind it, intervals, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ConfigError, DataError
from kshot.files import write_json
from kshot.intervals import mean_interval
from kshot.measures import ACCURACY, MEASURES, Measure, Statistics


@dataclass(frozen=True)
class Protocol:
    """What a number was measured on; two results with equal protocols were measured on the same tasks, in pairs.

    ways: classes a task; 1 for tasks of regression, which have one output and no classes.
    within_domain: whether the classes of a task came from one domain, where that was not as the split itself says; None
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
    within_domain: bool | None = None

    @property
    def drawn(self) -> str:
        """How the classes of a task were drawn, in words, where that was not as the split itself says."""
        return {None: "", True: ", each within one domain", False: ", across domains"}[self.within_domain]

    def __str__(self) -> str:
        if self.ways == 1:
            return (
                f"{self.shots}-shot, {self.queries} query points, {self.tasks} tasks of {self.dataset}/{self.split}, "
                f"seed {self.seed}"
            )
        return (
            f"{self.ways}-way {self.shots}-shot, {self.queries} queries a class, {self.tasks} tasks of "
            f"{self.dataset}/{self.split}{self.drawn}, {self.statistics} statistics, seed {self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Values (tasks,) float64, one a task in the order of task numbers, and how they came about.

    values: what `measure` says: accuracies in 0..1, or the mean squared errors of regression tasks.
    adaptation: how tasks were learnt, name and options; own_adaptation says whether that is the learner's own way.
    precision: what the backbone computed in.
    weights: what identifies the checkpoint that was measured; None for a learner that came from none.
    domains: the domain (alphabet, superclass, domain) of each task's classes; None where tasks mix domains.
    """

    learner: str
    adaptation: str
    protocol: Protocol
    values: NDArray[np.float64]
    seconds: float
    own_adaptation: bool = True
    precision: Literal["float32", "bf16"] = "float32"
    weights: str | None = None
    domains: Sequence[str] | None = None
    measure: Measure = ACCURACY

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The values of tasks of classification; ConfigError for regression, which has none."""
        if self.measure is not ACCURACY:
            raise ConfigError(f"{self.protocol.dataset} has no accuracies but errors; they are in .values")
        return self.values

    @property
    def mean(self) -> float:
        """Mean over tasks: of accuracies, 0..1, or of squared errors."""
        return float(self.values.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95% confidence interval of the mean over tasks."""
        return mean_interval(self.values).ci95

    def by_domain(self) -> dict[str, Evaluation]:
        """The tasks of each domain as a result of their own, in the order of names; empty where tasks mix domains."""
        names = np.asarray(self.domains or [])
        parts = {}
        for name in sorted(set(self.domains or [])):
            values = self.values[names == name]
            protocol = replace(self.protocol, tasks=len(values))
            parts[name] = replace(self, protocol=protocol, values=values, domains=None)
        return parts

    def __str__(self) -> str:
        text = f"{self.measure.text(self.mean, self.ci95)}{self.measure.unit}"
        return f"{self.learner}: {text} ({self.protocol})"

    def save(self, folder: Path) -> Path:
        """Write everything, the value of each task included, to a JSON file in `folder`; returns its path.

        ConfigError where it cannot be written; an earlier file is then untouched.
        """
        at = self.protocol
        name = f"{at.split}-{at.ways}way-{at.shots}shot-{at.queries}query-{at.tasks}tasks-seed{at.seed}"
        drawn = {None: "", True: "-within", False: "-across"}[at.within_domain]
        path = folder / f"{name}{drawn}-{self.adaptation}-{at.statistics}-{self.precision}.json"
        content = asdict(self) | {"mean": self.mean, "ci95": self.ci95, "values": self.values.tolist()}
        content["measure"] = self.measure.name
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
            # an earlier version of kshot knew accuracies alone, and called them so
            values = content["values"] if "values" in content else content["accuracies"]
            known["values"] = np.asarray(values, np.float64)
            known["measure"] = MEASURES[content.get("measure", ACCURACY.name)]
            return cls(**known | {"protocol": Protocol(**content["protocol"])})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not an evaluation that kshot wrote ({error}); evaluate the run again"
            ) from error


@dataclass(frozen=True)
class Difference:
    """Mean over tasks of value(first) - value(second) on the same tasks, and its 95% half-width."""

    mean: float
    ci95: float
    measure: Measure = ACCURACY

    def __str__(self) -> str:
        points = " points" if self.measure is ACCURACY else ""
        return f"{self.measure.text(self.mean, self.ci95, signed=True)}{points}, paired over the same tasks"


def compare(first: Evaluation, second: Evaluation) -> Difference:
    """The paired difference of two results; ConfigError where they were not measured on the same tasks."""
    own, other = (asdict(result.protocol) | {"statistics": ""} for result in (first, second))
    differing = [name for name in own if own[name] != other[name]]
    if differing:
        raise ConfigError(
            f"{first.learner} and {second.learner} were measured on different tasks (they differ in "
            f"{', '.join(differing)}); evaluate both with the same options"
        )
    difference = first.values - second.values
    return Difference(*mean_interval(difference), first.measure)


def over_seeds(results: Sequence[Evaluation]) -> tuple[float, float]:
    """Mean and 95% half-width over several trainings of one learner: each training's mean is one observation."""
    return mean_interval([result.mean for result in results])
