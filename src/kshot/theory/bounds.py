"""The bounds of Zhou et al. (2021), "Z21", Theorems 1 and 2, beside what they bound.

theta* is the initialisation, theta*_T the optimum of task T, theta the weights after q gradient steps from theta* at
rate a on K samples D; L is the risk in the population and L_D that on the samples. The papers' constants G and L_s are
exact here: no sample of the tasks' distribution, and no weights that gradient descent can reach, exceed them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from kshot.theory.task_mixture import Logistic, Tasks

MEASURED = (
    "excess_risk",
    "generalization_gap",
    "optimization_gap",
    "squared_distance",
    "squared_gradient",
    "empirical_squared_gradient",
)


@dataclass(frozen=True)
class Bounds:
    """The right-hand sides, for a loss that is G-Lipschitz and L_s-smooth and q steps at rate a on K samples.

    lipschitz: G; smoothness: L_s; rate: a, at most 1 / L_s; shots: K; steps: q
    """

    lipschitz: float
    smoothness: float
    rate: float
    shots: int
    steps: int

    @property
    def growth(self) -> float:
        """rho^q - 1 with rho = 1 + 2 a L_s; infinite where it leaves the range of float64."""
        with np.errstate(over="ignore"):
            return float(np.expm1(self.steps * np.log1p(2 * self.rate * self.smoothness)))

    def generalization(self) -> float:
        """First term of Theorem 1, 2 G^2 (rho^q - 1) / (K L_s): of the risk beyond the risk on the samples."""
        return 2 * self.lipschitz**2 * self.growth / (self.shots * self.smoothness)

    def optimization(self, squared_distance: float) -> float:
        """Second term of Theorem 1, E|theta* - theta*_T|^2 / (2 a): of the risk on the samples."""
        return squared_distance / (2 * self.rate)

    def gradient(self, empirical_squared_gradient: float) -> float:
        """Theorem 2, 8 G^2 (rho^q - 1)^2 / K^2 + 2 E|grad L_D|^2: of E|grad L|^2, the squared gradient of the risk."""
        apart = self.lipschitz * self.growth / self.shots
        return 8 * apart * apart + 2 * empirical_squared_gradient

    def convex_generalization(self) -> float:
        """2 a G^2 q / K: a gradient step of a CONVEX loss brings no two points further apart (Hardt et al. 2016)."""
        return 2 * self.rate * self.lipschitz**2 * self.steps / self.shots

    def convex_optimization(self, squared_distance: float) -> float:
        """E|theta* - theta*_T|^2 / (2 a q), the rate of gradient descent; with q = 0 that of Theorem 1."""
        return squared_distance / (2 * self.rate * max(self.steps, 1))


def measure(
    tasks: Tasks, start: Tensor, rate: float, shots: int, steps: Sequence[int], weights: Tensor | None = None
) -> Iterator[dict[str, float]]:
    """What happens in gradient descent from `start` (B, d): for each q in `steps`, measured means beside their bounds.

    The optimisation gap is E[L_D(theta) - L_D(theta*_T)]; with the generalisation gap it adds up to the excess risk.
    G is that of the task whose optimum is farthest from its start, and so holds for all of them.

    rate: a, at most 1 / L_s; shots: K
    weights: (B,) probabilities of the tasks; by default all alike.
    """
    distances = (start - tasks.optimum).square().sum(1)
    path, least = tasks.adapted(start, rate, max(steps)), tasks.loss(tasks.optimum)
    for count in steps:
        theta = path[count]
        risk, on_samples = tasks.excess_risk(theta), tasks.loss(theta) - least
        gradients = [gradient.square().sum(1) for gradient in (tasks.population_gradient(theta), tasks.gradient(theta))]
        columns = torch.stack([risk, risk - on_samples, on_samples, distances, *gradients])
        means = columns.mean(1) if weights is None else columns @ weights
        row = dict(zip(MEASURED, means.tolist()))
        steepness = tasks.family.lipschitz(float(distances.max().sqrt()), rate * count)
        bounds = Bounds(steepness, tasks.family.smoothness, rate, shots, count)
        yield row | _bound_columns(bounds, row)


def _bound_columns(bounds: Bounds, measured: Mapping[str, float]) -> dict[str, float]:
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
        "theorem2": bounds.gradient(measured["empirical_squared_gradient"]),
        "lipschitz": bounds.lipschitz,
    }


def fair_coin(shots: int) -> dict[str, float]:
    """One gradient step at a = 1 / L_s of logistic regression on K tosses of a fair coin, in exact expectation.

    All inputs are 1 and theta starts at its optimum 0. There is a task for every number of heads, which stands for all
    of its samples by one target, their mean: the loss is linear in the targets.
    """
    heads = torch.arange(shots + 1, dtype=torch.float64)
    zeros, inputs = torch.zeros(shots + 1, 1, dtype=torch.float64), torch.ones(shots + 1, 1, 1, dtype=torch.float64)
    tasks = Tasks(Logistic(), zeros, inputs, (heads / shots).unsqueeze(1))
    probabilities = torch.from_numpy(stats.binom.pmf(heads.numpy(), shots, 0.5))
    return next(measure(tasks, zeros, 1 / Logistic.smoothness, shots, [1], probabilities))
