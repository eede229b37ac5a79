"""What is to be measured of a run: the options of `Run.evaluate`, checked before any work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from typing_extensions import TypedDict

from kshot.data.dataset import SplitName
from kshot.data.regression import RegressionDataset
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError, did_you_mean
from kshot.evaluation.plan import EvaluationPlan, describe_adaptation, plan_evaluation
from kshot.evaluation.protocol import evaluate, shared_features
from kshot.evaluation.results import Evaluation
from kshot.evaluation.training_mean import told_the_mean
from kshot.learners.base import Learner
from kshot.measures import QueryBalance, Statistics
from kshot.report.names import printable
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
        Support images per class, one or more numbers; 5, unless they are given, whatever the run was trained with.
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
        """The measurement with these options, and the data to measure on; ConfigError for an unknown option.

        Parameters
        ----------
        options
            Options by name: the fields of this class, and `data`.
        """
        given: dict[str, Any] = dict(options)
        data = given.pop("data", None)
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            known.append("data")
            near = did_you_mean(unknown[0], known)
            raise ConfigError(
                f"evaluate has no option {', '.join(map(repr, unknown))}{near}; its options: {', '.join(known)}"
            )
        if isinstance(given.get("shots"), int):
            given["shots"] = [given["shots"]]
        shots = given.get("shots", ())
        if not isinstance(shots, Sequence) or not all(isinstance(count, int) for count in shots):
            raise ConfigError(f"shots is {shots!r}; give a whole number or a list of them, such as [1, 5]")
        if isinstance(given.get("statistics"), str):
            given["statistics"] = [given["statistics"]]
        return cls(**given), data

    def kinds(self, learner: Learner, data: AnyDataset) -> Sequence[Statistics]:
        """The kinds of statistics to measure with.

        Parameters
        ----------
        learner
            What is measured.
        data
            The dataset, or family of functions, that tasks are drawn from.
        """
        return self.statistics or statistics_offered(learner, data)

    def check(self, learner: Learner, data: AnyDataset) -> None:
        """Refuse what cannot be measured, by the errors of `evaluate`.

        Parameters
        ----------
        learner, data
            As for `kinds`.
        """
        for name, values in (("shots", self.shots), ("statistics", self.statistics or ())):
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} are {list(values)}; give each of them once")
        for statistics in self.kinds(learner, data):
            self._plans(learner, data, statistics)

    def told_the_mean(self, learner: Learner, data: AnyDataset) -> Measurement:
        """The measurement with an adaptation that knows the mean feature of the training images of `data`, if needed.

        Parameters
        ----------
        learner
            What is measured.
        data
            What it was trained on.
        """
        if self.adaptation is None or isinstance(data, RegressionDataset):
            return self
        chosen = adaptations[self.adaptation]() if isinstance(self.adaptation, str) else self.adaptation
        return replace(self, adaptation=told_the_mean(chosen, learner, data.train, precision=self.precision))

    def evaluations_of(
        self, learner: Learner, data: AnyDataset, *, statistics: Statistics, shots: Sequence[int], progress: str | None
    ) -> list[Evaluation]:
        """One evaluation per number of shots, on features that are computed once.

        Parameters
        ----------
        learner, data
            As for `kinds`.
        statistics
            Where BatchNorm statistics come from.
        shots
            Support images per class, one or more numbers.
        progress
            What the lines on the terminal call the learner; None for no lines.
        """
        split = data.split(self.split)
        if progress is not None:
            print(f"evaluating {printable(progress)} on {split.dataset}/{split.name}", file=sys.stderr)
        shown = progress is not None
        features = shared_features(learner, split, adaptation=self.adaptation, precision=self.precision, progress=shown)
        shared = self._task_options() | {"features": features, "statistics": statistics, "progress": shown}
        return [evaluate(learner, split, shots=count, **shared) for count in shots]

    def among(
        self, learner: Learner, data: AnyDataset, *, saved: Sequence[Evaluation], statistics: Statistics
    ) -> dict[int, Evaluation]:
        """Those of the saved evaluations that this measurement would repeat, by their number of shots.

        Parameters
        ----------
        learner, data
            As for `kinds`.
        saved
            Evaluations of these weights.
        statistics
            Where BatchNorm statistics come from.
        """
        by_description = {
            (result.protocol, result.adaptation, result.precision, result.data): result for result in saved
        }
        checksum = data.split(self.split).checksum
        wanted = {
            shots: (plan.protocol, describe_adaptation(plan.adaptation), self.precision, checksum)
            for shots, plan in self._plans(learner, data, statistics).items()
        }
        return {shots: by_description[key] for shots, key in wanted.items() if key in by_description}

    def _plans(self, learner: Learner, data: AnyDataset, statistics: Statistics) -> dict[int, EvaluationPlan]:
        """What `evaluate` would do for each number of shots; refuses what cannot be measured, by its errors."""
        split, shared = data.split(self.split), self._task_options()
        return {
            shots: plan_evaluation(learner, split, shots=shots, statistics=statistics, **shared) for shots in self.shots
        }

    def _task_options(self) -> dict[str, Any]:
        protocol = ("ways", "queries", "tasks", "tasks_per_domain", "seed", "within_domain", "query_balance")
        names = (*protocol, "adaptation", "precision")
        return {name: getattr(self, name) for name in names}


def statistics_offered(learner: Learner, data: AnyDataset) -> Sequence[Statistics]:
    """The kinds of statistics that make a difference: a network of fully connected layers normalises nothing."""
    return learner.statistics_offered[:1] if isinstance(data, RegressionDataset) else learner.statistics_offered
