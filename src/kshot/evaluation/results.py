"""What was measured: one value per task with the protocol behind it, intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ConfigError
from kshot.evaluation import saved
from kshot.files import refusal, write_json
from kshot.intervals import MeanInterval, mean_interval
from kshot.measures import ACCURACY, MEASURES, Measure, QueryBalance, Statistics


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a number was measured on; two results with equal protocols were measured on the same tasks, in pairs.

    Attributes
    ----------
    dataset, split
        Where the tasks are drawn from.
    ways
        Classes per task; 1 for tasks of regression, which have one output and no classes.
    shots, queries
        Support and query images per class, or points per task of regression.
    tasks
        Number of tasks.
    seed
        Names the set of tasks.
    statistics
        Where BatchNorm statistics came from.
    within_domain
        Whether the classes of a task came from one domain; None if that is as the split itself says.
    query_balance
        How the query images were spread over the classes, see `UnbalancedSampler`.
    tasks_per_domain
        How many of the tasks come from each domain; None if domains were drawn at random.
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
    query_balance: QueryBalance = "balanced"
    tasks_per_domain: int | None = None

    @property
    def query_text(self) -> str:
        """The query images of a task, in words."""
        return {
            "balanced": f"{self.queries} queries per class",
            "dirichlet": f"{self.ways * self.queries} queries in Dirichlet proportions",
            "single": "a single query",
        }[self.query_balance]

    @property
    def drawn(self) -> str:
        """How the classes of a task were drawn, in words; empty if that is as the split itself says."""
        each = "" if self.tasks_per_domain is None else f", {self.tasks_per_domain} of each domain"
        return {None: "", True: ", each within one domain", False: ", across domains"}[self.within_domain] + each

    def __str__(self) -> str:
        if self.ways == 1:
            return (
                f"{self.shots}-shot, {self.queries} query points, {self.tasks} tasks of {self.dataset}/{self.split}, "
                f"seed {self.seed}"
            )
        return (
            f"{self.ways}-way {self.shots}-shot, {self.query_text}, {self.tasks} tasks of "
            f"{self.dataset}/{self.split}{self.drawn}, {self.statistics} statistics, seed {self.seed}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What a learner reached on each of many tasks, and how that came about.

    Attributes
    ----------
    learner
        The registered name of the learner.
    adaptation
        How tasks were learnt, name and options; "own" for a learner that adapts in its own way.
    protocol
        Which tasks were measured.
    values
        One value per task (tasks,), float64, in the order of task numbers: accuracies in 0..1, or the mean squared
        errors of regression.
    seconds
        How long measuring took.
    own_adaptation
        Whether the adaptation is the learner's own.
    precision
        What the backbone computed in.
    weights
        Identifies the checkpoint that was measured; None for a learner that came from none.
    domains
        The domain (alphabet, superclass) of each task's classes; None if tasks mix domains.
    measure
        What the values are.
    transductive
        Whether the adaptation looked at all query images of a task together.
    data
        Identifies the prepared dataset that tasks were drawn from; None for data in memory, and if an earlier version
        of kshot did not say.
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
    data: str | None = None
    transductive: bool = False

    @property
    def sees_queries(self) -> bool:
        """Whether the answer for a query image depended on the others: by the adaptation, or by BatchNorm."""
        return self.transductive or self.protocol.statistics == "transductive"

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The accuracies (tasks,) of tasks of classification; ConfigError for regression, which has none."""
        if self.measure is not ACCURACY:
            raise ConfigError(f"{self.protocol.dataset} has no accuracies but errors; they are in .values")
        return self.values

    @property
    def mean(self) -> float:
        """Mean over tasks of the accuracies, 0..1, or of the squared errors."""
        return float(self.values.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95% confidence interval of the mean over tasks."""
        return mean_interval(self.values).ci95

    def by_domain(self) -> dict[str, Evaluation]:
        """The tasks of each domain as a separate result, in the order of names; empty if tasks mix domains."""
        names = np.asarray(self.domains or [])
        parts = {}
        for name in sorted(set(self.domains or [])):
            values = self.values[names == name]
            protocol = replace(self.protocol, tasks=len(values), tasks_per_domain=None)
            parts[name] = replace(self, protocol=protocol, values=values, domains=None)
        return parts

    def over_domains(self) -> MeanInterval:
        """The mean of the means of the domains, each of which counts the same, and the half-width of its interval."""
        parts = self.by_domain().values()
        if not parts:
            raise ConfigError("these tasks mix domains, so there is no mean of each; evaluate with within_domain=true")
        width = float(np.sqrt(sum(part.ci95**2 for part in parts))) / len(parts)
        return MeanInterval(float(np.mean([part.mean for part in parts])), width)

    def __str__(self) -> str:
        return f"{self._measured} ({self.protocol})"

    def __repr__(self) -> str:
        learnt = "" if self.own_adaptation else f"\n  tasks learnt by {self.adaptation}"
        computed = "" if self.precision == "float32" else f"\n  computed in {self.precision}"
        together = "\n  looks at all query images of a task together" if self.transductive else ""
        return (
            f"Evaluation of {self._measured}, mean {self.measure.name.replace('_', ' ')} with 95% interval\n"
            f"  {self.protocol}{learnt}{together}{computed}"
        )

    @property
    def _measured(self) -> str:
        """The learner, and what it reached, with the interval."""
        return f"{self.learner}: {self.measure.text(self.mean, self.ci95)}{self.measure.unit}"

    def save(self, folder: Path) -> Path:
        """Write everything, the value of each task included, to a JSON file in `folder`; returns its path.

        Raises
        ------
        ConfigError
            If it cannot be written; an earlier file is then untouched.
        """
        at = self.protocol
        tasks = f"{at.tasks}tasks" if at.tasks_per_domain is None else f"{at.tasks_per_domain}tasks-per-domain"
        name = f"{at.split}-{at.ways}way-{at.shots}shot-{at.queries}query-{tasks}-seed{at.seed}"
        drawn = {None: "", True: "-within", False: "-across"}[at.within_domain]
        balance = "" if at.query_balance == "balanced" else f"-{at.query_balance}"
        path = folder / f"{name}{drawn}{balance}-{self.adaptation}-{at.statistics}-{self.precision}.json"
        content = asdict(self) | {"mean": self.mean, "ci95": self.ci95, "values": self.values.tolist()}
        content["measure"] = self.measure.name
        try:
            write_json(path, content | {"checksum": saved.checksum(content)})
        except OSError as error:
            raise ConfigError(f"the evaluation {path} cannot be written: {refusal(error)}") from error
        return path

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read the file at `path`, which `save` wrote; DataError if it is not such a result, or is damaged."""
        content = saved.read(Path(path))
        # version 0.1 knew accuracies alone, and called them so
        values = content["values"] if "values" in content else content["accuracies"]
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        known["values"] = np.asarray(values, np.float64)
        known["measure"] = MEASURES[content.get("measure", ACCURACY.name)]
        known["protocol"] = Protocol(
            **{
                field.name: content["protocol"][field.name]
                for field in fields(Protocol)
                if field.name in content["protocol"]
            }
        )
        return cls(**known)


@dataclass(frozen=True)
class Difference:
    """The paired difference of two results on the same tasks, `kshot.evaluation.compare` of them.

    Attributes
    ----------
    mean
        Of value(first) - value(second) over tasks, in the unit of the measure: 0..1 for accuracy.
    ci95
        Half-width of the 95% interval of the mean.
    measure
        What the values are: accuracy or squared error.
    unlike
        Whether one of the two looked at all query images together, and the other did not.
    """

    mean: float
    ci95: float
    measure: Measure = ACCURACY
    unlike: bool = False

    def __str__(self) -> str:
        points = " points" if self.measure is ACCURACY else ""
        text = f"{self.measure.text(self.mean, self.ci95, signed=True)}{points}, paired over the same tasks"
        return text + ("; one of the two looked at all query images together" if self.unlike else "")


def compare(first: Evaluation, second: Evaluation) -> Difference:
    """The paired difference of two results.

    Parameters
    ----------
    first, second
        Results on the same tasks; where BatchNorm statistics come from may differ.

    Raises
    ------
    ConfigError
        If they were not measured on the same tasks.
    """
    one, other = (asdict(result.protocol) | {"statistics": ""} for result in (first, second))
    differing = [name for name in one if one[name] != other[name]]
    if differing:
        raise ConfigError(
            f"{first.learner} and {second.learner} were measured on different tasks (they differ in "
            f"{', '.join(differing)}); evaluate both with the same options"
        )
    if first.data != second.data:
        raise ConfigError(
            f"{first.learner} and {second.learner} were measured on different data of the name "
            f"{first.protocol.dataset}, which was prepared again in between; evaluate both again"
        )
    difference = first.values - second.values
    unlike = first.sees_queries != second.sees_queries
    return Difference(*mean_interval(difference), first.measure, unlike)


def over_seeds(results: Sequence[Evaluation]) -> tuple[float, float]:
    """Mean and half-width of the 95% interval over trainings of one learner: `results` has one result of each."""
    return mean_interval([result.mean for result in results])
