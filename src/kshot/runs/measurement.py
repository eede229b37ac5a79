"""What is to be measured of a run: the options of `Run.evaluate`, checked before any work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from typing_extensions import TypedDict

from kshot.data.dataset import SplitName
from kshot.data.regression import RegressionDataset
from kshot.data.tasks import AnyDataset, AnySplit
from kshot.errors import ConfigError
from kshot.evaluation.protocol import (
    departure,
    describe_adaptation,
    evaluate,
    plan_evaluation,
    shared_features,
    usual_ways,
)
from kshot.evaluation.results import Evaluation
from kshot.evaluation.training_mean import told_the_mean
from kshot.learners.base import Learner
from kshot.measures import QueryBalance, Statistics
from kshot.solvers.adaptation import Adaptation, adaptations


class EvaluationKeywords(TypedDict, total=False):
    """The keywords of `Run.evaluate` and `Run.compare`: the fields of `Measurement`, and the data.

    One number of shots and one kind of statistics may stand alone.
    """

    data: AnyDataset | None
    shots: int | Sequence[int]
    split: SplitName
    ways: int | None
    queries: int
    tasks: int
    tasks_per_domain: int | None
    seed: int
    within_domain: bool | None
    query_balance: QueryBalance
    adaptation: Adaptation | str | None
    precision: Literal["float32", "bf16"]
    statistics: Statistics | Sequence[Statistics] | None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is measured of a run, and on which tasks.

    Attributes
    ----------
    shots
        Support images per class, one or more numbers.
    split
        The classes that tasks are drawn from.
    statistics
        Kinds of BatchNorm statistics, for learners that adapt weights; None for all that the learner offers.
    ways, queries, tasks, tasks_per_domain, seed, within_domain, query_balance, adaptation, precision
        As for `kshot.evaluate`.
    """

    shots: Sequence[int] = (5,)
    split: SplitName = "test"
    ways: int | None = None
    queries: int = 15
    tasks: int = 2000
    tasks_per_domain: int | None = None
    seed: int = 0
    within_domain: bool | None = None
    query_balance: QueryBalance = "balanced"
    adaptation: Adaptation | str | None = None
    precision: Literal["float32", "bf16"] = "float32"
    statistics: Sequence[Statistics] | None = None

    @classmethod
    def of(cls, options: EvaluationKeywords) -> tuple[Measurement, AnyDataset | None]:
        """The measurement with these options, and the data to measure on; ConfigError for an unknown option."""
        given: dict[str, Any] = dict(options)
        data = given.pop("data", None)
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(f"evaluate has no option {', '.join(unknown)}; its options: {', '.join(known)}, data")
        if isinstance(given.get("shots"), int):
            given["shots"] = [given["shots"]]
        shots = given.get("shots", ())
        if not isinstance(shots, Sequence) or not all(isinstance(count, int) for count in shots):
            raise ConfigError(f"shots is {shots!r}; give a whole number or a list of them, such as [1, 5]")
        if isinstance(given.get("statistics"), str):
            given["statistics"] = [given["statistics"]]
        return cls(**given), data

    def kinds(self, learner: Learner, data: AnyDataset) -> Sequence[Statistics]:
        """The kinds of statistics to measure with."""
        return self.statistics or statistics_offered(learner, data)

    def check(self, learner: Learner, data: AnyDataset) -> None:
        """Refuse what cannot be measured, by the errors of `evaluate`."""
        for name, values in (("shots", self.shots), ("statistics", self.statistics or ())):
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} are {list(values)}; give each of them once")
        for statistics in self.kinds(learner, data):
            for shots in self.shots:
                plan_evaluation(
                    learner, data.split(self.split), shots=shots, statistics=statistics, **self._task_options()
                )

    def told_the_mean(self, learner: Learner, data: AnyDataset) -> Measurement:
        """The measurement with an adaptation that knows the mean feature of the training images of `data`, if needed.

        data: what the learner was trained on.
        """
        if self.adaptation is None or isinstance(data, RegressionDataset):
            return self
        chosen = adaptations[self.adaptation]() if isinstance(self.adaptation, str) else self.adaptation
        return replace(self, adaptation=told_the_mean(chosen, learner, data.train, precision=self.precision))

    def evaluations_of(
        self, learner: Learner, data: AnyDataset, *, statistics: Statistics, shots: Sequence[int], progress: str | None
    ) -> list[Evaluation]:
        """One evaluation per number of shots, on features that are computed once.

        progress: what the lines on the terminal call the learner; None for no lines.
        """
        split = data.split(self.split)
        if progress is not None:
            print(f"evaluating {progress} on {split.dataset}/{split.name}", file=sys.stderr)
        shown = progress is not None
        features = shared_features(learner, split, adaptation=self.adaptation, precision=self.precision, progress=shown)
        shared = self._task_options() | {"features": features, "statistics": statistics, "progress": shown}
        return [evaluate(learner, split, shots=count, **shared) for count in shots]

    def among(
        self, saved: Sequence[Evaluation], learner: Learner, data: AnyDataset, *, statistics: Statistics
    ) -> dict[int, Evaluation]:
        """Those of the saved evaluations that this measurement would repeat, by their number of shots."""
        chosen = adaptations[self.adaptation]() if isinstance(self.adaptation, str) else self.adaptation
        described = describe_adaptation(chosen or getattr(learner, "adaptation", None))
        split = data.split(self.split)
        wanted = self._protocol(learner, split) | {"statistics": statistics}
        return {
            result.protocol.shots: result
            for result in saved
            if (result.adaptation, result.precision, result.data) == (described, self.precision, split.checksum)
            and wanted.items() <= asdict(result.protocol).items()
        }

    def _protocol(self, learner: Learner, split: AnySplit) -> dict[str, Any]:
        # how many tasks there are in all follows from the number per domain
        tasks = {"tasks": self.tasks} if self.tasks_per_domain is None else {}
        return tasks | {
            "dataset": split.dataset,
            "split": split.name,
            "ways": usual_ways(learner, split) if self.ways is None else self.ways,
            "queries": self.queries,
            "tasks_per_domain": self.tasks_per_domain,
            "seed": self.seed,
            "within_domain": departure(split, self.within_domain),
            "query_balance": self.query_balance,
        }

    def _task_options(self) -> dict[str, Any]:
        protocol = ("ways", "queries", "tasks", "tasks_per_domain", "seed", "within_domain", "query_balance")
        names = (*protocol, "adaptation", "precision")
        return {name: getattr(self, name) for name in names}


def statistics_offered(learner: Learner, data: AnyDataset) -> Sequence[Statistics]:
    """The kinds of statistics that make a difference: a network of fully connected layers normalises nothing."""
    return learner.statistics_offered[:1] if isinstance(data, RegressionDataset) else learner.statistics_offered
