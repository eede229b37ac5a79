"""MAML and TSA-MAML on a mixture of regression tasks: one initialisation, or one for each of m groups of tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.theory.task_mixture import TaskMixture, Tasks

_BATCH = 64
_LEARNING_RATE = 0.1
CLUSTERED_TASKS = 1000
_ESTIMATION_STEPS = 20  # gradient steps to the estimated optimum of a task, as in the release of Z21


@dataclass(frozen=True)
class Training:
    """How initialisations are trained.

    shots: K, samples a task; rate, steps: a and q of the gradient steps on them.
    iterations: meta updates by Adam, with cosine annealing, of 64 tasks each.
    """

    shots: int
    rate: float
    steps: int = 5
    iterations: int = 200


@dataclass(frozen=True)
class Initializations:
    """m initialisations, and the point from which the optimum of a task is estimated to choose among them.

    points: (m, d); origin: (d,)
    """

    points: Tensor
    origin: Tensor

    def chosen(self, tasks: Tasks, rate: float) -> Tensor:
        """For each task the index (B,) of the point nearest to its estimated optimum (Z21, section 4.2)."""
        if len(self.points) == 1:
            return torch.zeros(len(tasks.optimum), dtype=torch.int64)
        return torch.cdist(estimated_optima(tasks, self.origin, rate), self.points).argmin(1)

    def starts(self, tasks: Tasks, rate: float) -> Tensor:
        """The initialisation (B, d) of each task."""
        return self.points[self.chosen(tasks, rate)]


def estimated_optima(tasks: Tasks, origin: Tensor, rate: float) -> Tensor:
    """What a number of gradient steps from `origin` (d,) on the samples of each task lead to, (B, d)."""
    return tasks.adapted(origin.expand_as(tasks.optimum), rate, _ESTIMATION_STEPS)[-1]


def maml(mixture: TaskMixture, training: Training, generator: torch.Generator) -> Initializations:
    """MAML (Finn et al. 2017) from the origin: the one point whose adapted weights have the least population risk."""
    zero = torch.zeros_like(mixture.centres[0])
    trained = _trained(mixture, training, Initializations(zero.unsqueeze(0), zero), generator)
    return Initializations(trained.points, trained.points[0])


def tsa_maml(
    mixture: TaskMixture, training: Training, start: Initializations, groups: int, generator: torch.Generator
) -> Initializations:
    """TSA-MAML (Z21, Algorithm 1): k-means over the tasks' estimated optima, then MAML on each group.

    start: what `maml` returned. A task is assigned to the nearest of the CURRENT initialisations, as in the paper.
    """
    from sklearn.cluster import KMeans  # takes a second to import, which the other experiments can do without

    tasks = mixture.sample(CLUSTERED_TASKS, training.shots, generator)
    optima = estimated_optima(tasks, start.origin, training.rate).numpy()
    seed = int(torch.randint(2**31, (), generator=generator))
    means = KMeans(groups, n_init=10, random_state=seed).fit(optima).cluster_centers_
    return _trained(mixture, training, Initializations(torch.from_numpy(means), start.origin), generator)


def _trained(
    mixture: TaskMixture, training: Training, start: Initializations, generator: torch.Generator
) -> Initializations:
    """The points after training; their exact population risk takes the place of the query set."""
    points = start.points.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.iterations)
    for _ in range(training.iterations):
        tasks = mixture.sample(_BATCH, training.shots, generator)
        chosen = Initializations(points.detach(), start.origin).chosen(tasks, training.rate)
        adapted = tasks.adapted(points[chosen], training.rate, training.steps)[-1]
        optimizer.zero_grad()
        tasks.excess_risk(adapted).mean().backward()
        optimizer.step()
        schedule.step()
    return Initializations(points.detach(), start.origin)
