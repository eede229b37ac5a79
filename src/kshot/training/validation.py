"""The accuracy on unseen classes, or the error on unseen functions, that training steers by; one process measures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from kshot.data.episodes import TaskShape
from kshot.data.tasks import AnySplit, task_sampler
from kshot.errors import DataError
from kshot.evaluation.protocol import evaluate
from kshot.learners.base import Learner
from kshot.training.distributed import Processes


def make_validation(
    learner: Learner,
    split: AnySplit | None,
    shape: TaskShape,
    tasks: int,
    seed: int,
    within_domain: bool | None,
    precision: Literal["float32", "bf16"],
    processes: Processes,
) -> Callable[[], tuple[float, float]]:
    """A function that returns mean accuracy and 95% half-width on the validation tasks, nan where nothing is held out.

    The larger the number, the better: for regression it is minus the mean squared error.
    Raises DataError at once where the validation classes are too few or too small for the tasks.
    """
    if split is not None:
        try:
            task_sampler(split, shape, seed, within_domain)
        except DataError as error:
            raise DataError(
                f"validation on {shape} tasks is not possible: {error}, by "
                f"validation_ways, validation_shots or validation_queries"
            ) from error

    def validate() -> tuple[float, float]:
        mean, ci95 = math.nan, math.nan
        if split is not None and processes.is_first:
            numbers = (shape.ways, shape.shots, shape.queries, tasks, seed)
            result = evaluate(learner, split, *numbers, within_domain=within_domain, precision=precision)
            mean, ci95 = split.measure.sign * result.mean, result.ci95
        mean, ci95 = processes.from_first([mean, ci95])
        return mean, ci95

    return validate
