"""What gradient descent does on tasks whose population risk is known, next to the bounds of Z21's theorems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from scipy import stats
from torch import Tensor

from kshot.theory.bounds import Bounds
from kshot.theory.task_mixture import Logistic, MixtureTasks

MEASURED = (
    "excess_risk",
    "generalization_gap",
    "optimization_gap",
    "squared_distance",
    "squared_gradient",
    "empirical_squared_gradient",
)
EXPECTED_GRADIENT = "squared_expected_gradient"


def measure(
    tasks: MixtureTasks,
    start: Tensor,
    *,
    rate: float,
    shots: int,
    steps: Sequence[int],
    weights: Tensor | None = None,
) -> Iterator[dict[str, float]]:
    """Gradient descent from `start`: for each q in `steps`, measured means and their bounds.

    The optimisation gap is E[L_D(theta) - L_D(theta*_T)]; with the generalisation gap it adds up to the excess risk.
    "squared_gradient" is the larger reading of Theorem 2, E|grad L|^2. The constant G is that of the task whose optimum
    is farthest from its start, and therefore holds for all tasks.

    Parameters
    ----------
    tasks
        B tasks, each with one set of samples.
    start
        Weights (B, d) from which each task starts.
    rate
        a, at most 1 / L_s.
    shots
        K, in the bounds.
    steps
        Numbers q of gradient steps.
    weights
        Probabilities (B,) of the tasks; None for equal ones.
    """
    distances = (start - tasks.optimum).square().sum(1)
    path, least = tasks.adapted(start, rate=rate, steps=max(steps)), tasks.loss(tasks.optimum)
    for count in steps:
        theta = path[count]
        risk, on_samples = tasks.excess_risk(theta), tasks.loss(theta) - least
        gradients = [gradient.square().sum(1) for gradient in (tasks.population_gradient(theta), tasks.gradient(theta))]
        columns = torch.stack([risk, risk - on_samples, on_samples, distances, *gradients])
        means = columns.mean(1) if weights is None else columns @ weights
        row = dict(zip(MEASURED, means.tolist()))
        steepness = tasks.family.lipschitz(float(distances.max().sqrt()), rate * count)
        family = tasks.family
        bounds = Bounds(lipschitz=steepness, smoothness=family.smoothness, rate=rate, shots=shots, steps=count)
        yield row | _bound_columns(bounds, row)


def squared_expected_gradient(
    tasks: MixtureTasks, start: Tensor, *, rate: float, steps: Sequence[int], draws: int
) -> list[float]:
    """Z21's expected population gradient E_T |E_D[grad L(theta^q)]|^2, for each q in `steps`.

    The mean of squared sums over D is corrected for what the spread of single gradients adds to it, so that the
    estimate is unbiased for any number of draws; it may be slightly negative.

    Parameters
    ----------
    tasks
        Tasks with `draws` sets of samples each, one after the other, as ``TaskMixture.sample(..., draws=draws)`` gives
        them.
    start
        Weights (B, d) from which each row starts.
    rate
        a, at most 1 / L_s.
    steps
        Numbers q of gradient steps.
    draws
        Sets of samples per task, at least 2.
    """
    path = tasks.adapted(start, rate=rate, steps=max(steps))
    values = []
    for count in steps:
        gradients = tasks.population_gradient(path[count]).unflatten(0, (-1, draws))
        pairs = gradients.sum(1).square().sum(-1) - gradients.square().sum((1, 2))
        values.append(float(pairs.mean()) / (draws * (draws - 1)))
    return values


def coin_tosses(
    shots: int, *, heads: float = 0.5, steps: int = 1, rate: float = 4.0, start: float | None = None
) -> dict[str, float]:
    """Logistic regression on K tosses of a coin, in exact expectation over all samples.

    All inputs are 1. There is one row for every number of heads, which stands for all samples that have it by one
    target, their mean: the loss is linear in the targets.

    Parameters
    ----------
    shots
        Tosses K.
    heads
        Probability of heads.
    steps
        Gradient steps q.
    rate
        a, at most 1 / L_s = 4.
    start
        Weight before the first step; None for the optimum in the population.
    """
    optimum = torch.full((shots + 1, 1), heads, dtype=torch.float64).logit()
    begin = optimum if start is None else torch.full_like(optimum, start)
    seen = torch.arange(shots + 1, dtype=torch.float64)
    inputs = torch.ones(shots + 1, 1, 1, dtype=torch.float64)
    tasks = MixtureTasks(Logistic(), optimum, inputs, (seen / shots).unsqueeze(1))
    probabilities = torch.from_numpy(stats.binom.pmf(seen.numpy(), shots, heads))
    (row,) = measure(tasks, begin, rate=rate, shots=shots, steps=[steps], weights=probabilities)
    gradient = tasks.population_gradient(tasks.adapted(begin, rate=rate, steps=steps)[-1])
    return row | {EXPECTED_GRADIENT: float((probabilities @ gradient).square().sum())}


def _bound_columns(bounds: Bounds, measured: Mapping[str, float]) -> dict[str, float]:
    """The right-hand sides for what was measured."""
    distance = measured["squared_distance"]
    terms = {
        "theorem1_generalization": bounds.generalization(),
        "theorem1_optimization": bounds.optimization(distance),
        "convex_generalization": bounds.convex_generalization(),
        "convex_optimization": bounds.convex_optimization(distance),
    }
    return terms | {
        "theorem1": terms["theorem1_generalization"] + terms["theorem1_optimization"],
        "convex": terms["convex_generalization"] + terms["convex_optimization"],
        "theorem2": bounds.expected_gradient(measured["empirical_squared_gradient"]),
        "lipschitz": bounds.lipschitz,
    }
