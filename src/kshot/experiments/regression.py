"""How gradient steps fit a function: errors by the number of steps, and one task as in Finn et al. (2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from kshot.data.dataset import SplitName
from kshot.data.episodes import Episodes, IntArray, TaskShape
from kshot.data.regression import RegressionDataset
from kshot.data.regression_sampler import RegressionSampler
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError
from kshot.evaluation.fit import check_images
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Difference, Evaluation, compare
from kshot.evaluation.task_loop import for_tasks
from kshot.learners import InitializationLearner, Learner

_POINTS = 201  # of a curve in the picture


@dataclass(frozen=True)
class StepError:
    """The error that a learner's tasks have after so many gradient steps.

    Attributes
    ----------
    name
        The learner, as tables show it.
    steps
        Gradient steps per task.
    result
        Its `values` are the squared errors of the tasks.
    difference
        Difference to the first learner at the same shots and steps, on the same tasks; None for the first learner.
    """

    name: str
    steps: int
    result: Evaluation
    difference: Difference | None


@dataclass(frozen=True, eq=False)
class TaskFit:
    """One task, and the functions that a learner fits to it.

    Attributes
    ----------
    name
        The learner, as pictures show it.
    support, support_values
        The K points that the learner adapts to, (K,).
    inputs, truth
        The grid (P,), and the true function on it.
    by_steps
        The fitted function (P,) on the grid, by the number of gradient steps.
    """

    name: str
    support: NDArray[np.float64]
    support_values: NDArray[np.float64]
    inputs: NDArray[np.float64]
    truth: NDArray[np.float64]
    by_steps: Mapping[int, NDArray[np.float64]]


def step_errors(
    learners: Mapping[str, Learner],
    data: AnyDataset,
    *,
    shots: Sequence[int] = (5, 10),
    steps: Sequence[int] = (0, 1, 5, 10),
    split: SplitName = "test",
    queries: int = 100,
    tasks: int = 600,
    seed: int = 0,
    progress: bool = False,
) -> list[StepError]:
    """The squared error of learners that adapt weights after each number of gradient steps, on the same tasks.

    Parameters
    ----------
    learners
        Trained learners by the names that tables show; differences are to the first of them.
    data
        The family of functions.
    shots
        Numbers of support points.
    steps
        Numbers of gradient steps on the support points; 0 is the initialisation as it is.
    split
        Names the tasks; those of all splits have one distribution.
    queries
        Query points per task.
    tasks
        Number of tasks, at least 2; the intervals shrink with its square root.
    seed
        As for `evaluate`.
    progress
        Show a bar on the terminal.

    Returns
    -------
    list
        One error per number of shots, learner and number of steps, in this order.

    Raises
    ------
    ConfigError
        If the data hold classes, or a learner does not adapt weights.
    """
    part = _regression(data).split(split)
    settings = [(name, count, number) for count in shots for name in learners for number in steps]
    errors: list[StepError] = []
    first: dict[tuple[int, int], Evaluation] = {}
    for name, count, number in tqdm(settings, unit="setting", disable=not progress):
        with _taking(learners[name], number) as learner:
            result = evaluate(learner, part, shots=count, queries=queries, tasks=tasks, seed=seed)
        reference = first.setdefault((count, number), result)
        difference = compare(result, reference) if reference is not result else None
        errors.append(StepError(name, number, result, difference))
    return errors


def task_fits(
    learners: Mapping[str, Learner],
    data: AnyDataset,
    *,
    shots: int = 10,
    steps: Sequence[int] = (0, 1, 5, 10),
    split: SplitName = "test",
    task: int = 0,
    seed: int = 0,
) -> list[TaskFit]:
    """One task of a family of functions of one variable, and the functions that each learner fits to it.

    Parameters
    ----------
    learners
        Trained learners by the names that pictures show.
    data
        The family of functions.
    shots
        Number of support points.
    steps
        Numbers of gradient steps on the support points; 0 is the initialisation as it is.
    split
        Names the set of tasks, with the seed.
    task
        The number of the task.
    seed
        Names the set of tasks.

    Returns
    -------
    list
        One fit per learner.

    Raises
    ------
    ConfigError
        If the functions have several variables, so that no picture shows them, the data hold classes, or a learner
        does not adapt weights.
    """
    part = _regression(data).split(split)
    if part.family.bounds is None:
        raise ConfigError(
            f"{part.dataset} are functions of {part.family.input_size} variables: there is no curve to draw"
        )
    numbers, grid = np.asarray([task]), np.linspace(*part.family.bounds, _POINTS)[:, None]
    sampler = RegressionSampler(part, TaskShape(1, shots, 0), seed=seed)
    points = sampler.episodes(numbers)
    support, values = (points[0, :, 0].double().numpy() for points in (points.support, points.support_labels))
    truth = sampler.values(numbers, grid)[0]
    fits = []
    for name, learner in learners.items():
        check_images(learner, part)
        by_steps = {}
        for number in steps:
            with _taking(learner, number) as taking:
                by_steps[number] = _on_grid(taking, sampler, numbers, grid)
        fits.append(TaskFit(name, support, values, grid[:, 0], truth, by_steps))
    return fits


def _on_grid(
    learner: InitializationLearner, sampler: RegressionSampler, numbers: IntArray, grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the learner predicts (P,) on the grid (P, 1) for a single task."""

    def predict(episodes: Episodes) -> NDArray[np.float64]:
        inputs = torch.from_numpy(grid).to(episodes.support)[None]
        scores = learner.scores(replace(episodes, query=inputs, query_labels=torch.zeros_like(inputs)))
        return scores[0, :, 0].double().cpu().numpy()

    return for_tasks(learner, predict, sampler=sampler, numbers=numbers, normalization=None)[0]


@contextmanager
def _taking(learner: Learner, steps: int) -> Iterator[InitializationLearner]:
    """The learner takes this number of gradient steps in evaluation; at the end it is as before."""
    if not isinstance(learner, InitializationLearner):
        raise ConfigError(f"{type(learner).__name__} takes no gradient steps; choose a learner that adapts weights")
    if steps < 0:
        raise ConfigError(f"steps is {steps}, but must be at least 0")
    before = learner.test_inner_steps
    learner.test_inner_steps = steps
    try:
        yield learner
    finally:
        learner.test_inner_steps = before


def _regression(data: AnyDataset) -> RegressionDataset:
    if not isinstance(data, RegressionDataset):
        raise ConfigError(f"{data.name} holds classes and no functions; name a run that was trained on sinusoids")
    return data
