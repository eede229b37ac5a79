"""What an evaluation will do: its tasks, how they are learnt, and its protocol, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kshot.data.dataset import Split
from kshot.data.episodes import EpisodeSampler, IntArray, Sampler, TaskShape
from kshot.data.tasks import AnyDataset, AnySplit, split_of, task_sampler
from kshot.errors import ConfigError
from kshot.evaluation.features import check_mode
from kshot.evaluation.fit import check_images
from kshot.evaluation.results import Protocol
from kshot.learners.base import FeatureLearner, Learner
from kshot.learners.initialization import InitializationLearner
from kshot.learners.training_split import check_observed
from kshot.measures import QueryBalance, Statistics
from kshot.solvers.adaptation import Adaptation, HeadAdaptation, adaptations


@dataclass(frozen=True)
class EvaluationPlan:
    """The tasks of `evaluate` with some options, and how they are learnt.

    Attributes
    ----------
    shape
        Ways, shots and queries of a task.
    sampler
        Draws the tasks.
    numbers
        The tasks to measure.
    adaptation
        How a head is learnt from features; None for learners that learn a task in their own way.
    protocol
        What the result says that it was measured on.
    """

    shape: TaskShape
    sampler: Sampler
    numbers: IntArray
    adaptation: Adaptation | None
    protocol: Protocol


def plan_evaluation(
    learner: Learner,
    split: AnySplit | AnyDataset,
    *,
    ways: int | None,
    shots: int,
    queries: int,
    tasks: int,
    seed: int,
    within_domain: bool | None,
    query_balance: QueryBalance = "balanced",
    tasks_per_domain: int | None = None,
    adaptation: Adaptation | str | None = None,
    precision: str = "float32",
    statistics: Statistics | None = None,
) -> EvaluationPlan:
    """The tasks of `evaluate` with these options, and how they are learnt; all parameters as there.

    What cannot be measured is refused before any work, by the errors that `evaluate` raises.
    """
    if not isinstance(learner, Learner):
        raise ConfigError(f"{learner!r:.80} is not a learner; make one by kshot.create_learner(name, data)")
    if isinstance(queries, int) and queries < 1:
        raise ConfigError(f"queries is {queries}, but must be at least 1: there is nothing to measure without any")
    check_tasks(tasks if tasks_per_domain is None else tasks_per_domain)
    check_mode(learner, precision, statistics)
    split = split_of(split)
    if ways is None:
        ways = split.usual_ways if learner.bound_ways is None else learner.bound_ways
    learner.check_ways(ways)
    check_observed(learner)
    shape = TaskShape(ways, shots, queries)
    sampler = task_sampler(split, shape, seed=seed, within_domain=within_domain, query_balance=query_balance)
    numbers = _numbers(sampler, tasks, tasks_per_domain)
    chosen = adaptation_of(learner, adaptation)
    _check_together(learner, chosen, statistics)
    if adaptation is not None and not isinstance(split, Split):
        raise ConfigError("adaptations tell classes apart, and these tasks are regression; leave out the adaptation")
    check_images(learner, split)
    protocol = Protocol(
        dataset=split.dataset,
        split=split.name,
        ways=ways,
        shots=shots,
        queries=queries,
        tasks=len(numbers),
        seed=seed,
        statistics=statistics or learner.statistics_offered[0],
        within_domain=None if within_domain == split.tasks_within_domain else within_domain,
        query_balance=query_balance,
        tasks_per_domain=tasks_per_domain,
    )
    return EvaluationPlan(shape, sampler, numbers, chosen, protocol)


def _numbers(sampler: Sampler, tasks: int, tasks_per_domain: int | None) -> IntArray:
    """The numbers of the tasks to measure: the first ones, or the first ones of each domain."""
    if tasks_per_domain is None:
        return np.arange(tasks)
    if not isinstance(sampler, EpisodeSampler):
        raise ConfigError("these tasks are regression and have no domains; leave out tasks_per_domain")
    return sampler.first_of_each_domain(tasks_per_domain)


def check_tasks(tasks: int) -> None:
    """ConfigError if the tasks are too few for an interval."""
    if tasks < 2:
        raise ConfigError(f"tasks is {tasks}, but must be at least 2: one task alone has no confidence interval")


def describe_adaptation(adaptation: Adaptation | None) -> str:
    """The adaptation's description, or "own" for a learner that learns tasks in its own way."""
    return "own" if adaptation is None else adaptation.description


def adaptation_of(learner: Learner, adaptation: Adaptation | str | None) -> Adaptation | None:
    """The adaptation that was asked for, or the learner's own; None if the learner adapts in its own way."""
    if adaptation is None:
        return learner.adaptation if isinstance(learner, FeatureLearner) else None
    chosen = adaptations[adaptation]() if isinstance(adaptation, str) else adaptation
    if isinstance(learner, FeatureLearner):
        return chosen
    if not isinstance(learner, InitializationLearner):
        raise ConfigError(f"{type(learner).__name__} adapts in its own way; leave out the adaptation")
    if not isinstance(chosen, HeadAdaptation):
        raise ConfigError(
            f"{type(learner).__name__} lends its body to adaptations that fit a head, and {chosen.description} moves "
            f"the body, too; choose another, such as logistic, or leave out the adaptation"
        )
    return chosen


def _check_together(learner: Learner, adaptation: Adaptation | None, statistics: Statistics | None) -> None:
    """ConfigError if query images would be looked at together, and normalised one by one."""
    used = statistics or learner.statistics_offered[0]
    if adaptation is not None and adaptation.transductive and used == "inductive":
        raise ConfigError(
            f"{adaptation.description} looks at all query images together, and inductive statistics at one at a time; "
            f"choose statistics='transductive', or another adaptation, such as logistic"
        )
