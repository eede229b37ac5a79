"""The accuracy on unseen classes, or the error on unseen functions, that training steers by; one process measures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from kshot.data.tasks import AnySplit, task_sampler
from kshot.errors import DataError
from kshot.evaluation.agreement import group_agreement
from kshot.evaluation.protocol import evaluate, shared_features
from kshot.learners.base import Learner
from kshot.training.distributed import Processes
from kshot.training.options import ResolvedOptions

_FEWEST_TASKS = 2  # an interval needs two
_GROUPED_TASKS = 100  # whose groups are compared with their domains, unless there are fewer
_GROWTH = 4  # of the number of tasks, as long as time is left


class Score(NamedTuple):
    """What validation found; the larger the mean, the better: for regression it is minus the mean squared error.

    Attributes
    ----------
    mean
        Mean over tasks; nan if nothing is held out.
    ci95
        Half-width of its 95% interval over tasks.
    tasks
        Number of tasks: all validation tasks, unless time was short.
    """

    mean: float
    ci95: float
    tasks: int


class Validation:
    """Measures a learner on the validation tasks, which are the same every time.

    Parameters
    ----------
    learner
        What is measured.
    split
        Its classes were held out; None if there are none.
    options
        Shape, number and seed of the tasks.
    processes
        The first one measures, and tells the others.

    Raises
    ------
    DataError
        At once, if the validation classes are too few or too small for the tasks.
    """

    def __init__(
        self, learner: Learner, split: AnySplit | None, *, options: ResolvedOptions, processes: Processes
    ) -> None:
        self._learner, self._split, self._options, self._processes = learner, split, options, processes
        if split is not None:
            try:
                task_sampler(split, options.validation_shape, seed=options.seed, within_domain=options.within_domain)
            except DataError as error:
                raise DataError(
                    f"validation on {options.validation_shape} tasks is not possible: {str(error).rstrip('.')}. The "
                    f"options of validation are validation_ways, validation_shots and validation_queries"
                ) from error

    def score(self) -> Score:
        """The score on all validation tasks."""
        return self._from_first(lambda split: self._measure(split, self._options.validation_tasks))

    def score_within(self, seconds: float) -> Score:
        """The score on as many of the tasks as fit into so many seconds, and on two at least."""
        return self._from_first(lambda split: self._measure_within(split, seconds))

    def agreement(self) -> dict[str, float]:
        """How well the learner's groups agree with the domains of validation tasks; empty if it has no groups."""
        agreed = None
        if self._split is not None and self._processes.is_first:
            options = self._options
            agreed = group_agreement(
                self._learner,
                self._split,
                options.validation_shape,
                tasks=min(options.validation_tasks, _GROUPED_TASKS),
                seed=options.seed,
                within_domain=options.within_domain,
                precision=options.precision,
            )
        nmi, ari = self._processes.from_first((math.nan, math.nan) if agreed is None else (agreed.nmi, agreed.ari))
        return {} if math.isnan(nmi) else {"group_nmi": nmi, "group_ari": ari}

    def _from_first(self, measure: Callable[[AnySplit], Score]) -> Score:
        score = Score(math.nan, math.nan, self._options.validation_tasks)
        if self._split is not None and self._processes.is_first:
            score = measure(self._split)
        mean, ci95, tasks = self._processes.from_first(score)
        return Score(mean, ci95, int(tasks))

    def _measure(self, split: AnySplit, tasks: int, features: Tensor | None = None) -> Score:
        options = self._options
        result = evaluate(
            self._learner,
            split,
            ways=options.validation_ways,
            shots=options.validation_shots,
            queries=options.validation_queries,
            tasks=tasks,
            seed=options.seed,
            within_domain=options.within_domain,
            features=features,
            precision=options.precision,
        )
        return Score(split.measure.sign * result.mean, result.ci95, tasks)

    def _measure_within(self, split: AnySplit, seconds: float) -> Score:
        """Measure more and more tasks as long as the next measurement, at the speed of the last one, is in time."""
        end = time.perf_counter() + seconds
        features = shared_features(self._learner, split, precision=self._options.precision)
        tasks = _FEWEST_TASKS
        while True:
            started = time.perf_counter()
            score = self._measure(split, tasks, features)
            now = time.perf_counter()
            in_time = int((end - now) * tasks / (now - started))
            more = min(self._options.validation_tasks, _GROWTH * tasks, in_time)
            if more <= tasks:
                return score
            tasks = more
