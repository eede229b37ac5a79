"""MAML and TSA-MAML on a mixture of regression tasks: one initialisation, or one per group of tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.theory.task_mixture import MixtureTasks, TaskMixture

_BATCH = 64
_LEARNING_RATE = 0.1
CLUSTERED_TASKS = 1000
_ESTIMATION_STEPS = 20  # gradient steps to the estimated optimum of a task, as in the release of Z21


@dataclass(frozen=True)
class MetaTraining:
    """How initialisations are trained.

    Attributes
    ----------
    shots
        K, samples per task.
    rate, steps
        a and q of the gradient steps on them.
    iterations
        Meta updates by Adam with cosine annealing, on 64 tasks each.
    """

    shots: int
    rate: float
    steps: int = 5
    iterations: int = 200


@dataclass(frozen=True)
class Initializations:
    """m initialisations, and the point from which the optimum of a task is estimated to choose among them.

    Attributes
    ----------
    points
        The initialisations, (m, d).
    origin
        Where that estimate starts, (d,).
    """

    points: Tensor
    origin: Tensor

    def chosen(self, tasks: MixtureTasks, rate: float) -> Tensor:
        """The index (B,) of the point nearest to each task's estimated optimum (Z21, section 4.2).

        Parameters
        ----------
        tasks
            B tasks with samples.
        rate
            Learning rate of the steps from the origin to the estimated optimum.
        """
        if len(self.points) == 1:
            return torch.zeros(len(tasks.optimum), dtype=torch.int64)
        return torch.cdist(estimated_optima(tasks, self.origin, rate), self.points).argmin(1)

    def starts(self, tasks: MixtureTasks, rate: float) -> Tensor:
        """The initialisation (B, d) that each task starts from.

        Parameters
        ----------
        tasks, rate
            As for `chosen`.
        """
        return self.points[self.chosen(tasks, rate)]


def estimated_optima(tasks: MixtureTasks, origin: Tensor, rate: float) -> Tensor:
    """Weights (B, d) after 20 gradient steps from `origin` (d,) on the samples of each task."""
    return tasks.adapted(origin.expand_as(tasks.optimum), rate=rate, steps=_ESTIMATION_STEPS)[-1]


def maml(mixture: TaskMixture, training: MetaTraining, generator: torch.Generator) -> Initializations:
    """MAML (Finn et al. 2017) from the origin: the one point whose adapted weights have the least population risk.

    Parameters
    ----------
    mixture
        Where tasks come from.
    training
        How the initialisation is trained.
    generator
        Draws the tasks.
    """
    zero = torch.zeros_like(mixture.centres[0])
    trained = _trained(mixture, training, Initializations(zero.unsqueeze(0), zero), generator)
    return Initializations(trained.points, trained.points[0])


def tsa_maml(
    mixture: TaskMixture, training: MetaTraining, *, start: Initializations, generator: torch.Generator, groups: int
) -> Initializations:
    """TSA-MAML (Z21, Algorithm 1): k-means over the tasks' estimated optima, then MAML on each group.

    A task is assigned to the nearest of the CURRENT initialisations, as in the paper.

    Parameters
    ----------
    mixture
        Where tasks come from.
    training
        How the initialisations are trained.
    start
        What `maml` returned.
    generator
        Draws tasks and the seed of k-means.
    groups
        Number m of initialisations.
    """
    from sklearn.cluster import KMeans  # takes a second to import, which only this experiment needs

    tasks = mixture.sample(CLUSTERED_TASKS, generator, shots=training.shots)
    optima = estimated_optima(tasks, start.origin, training.rate).numpy()
    seed = int(torch.randint(2**31, (), generator=generator))
    means = KMeans(groups, n_init=10, random_state=seed).fit(optima).cluster_centers_
    return _trained(mixture, training, Initializations(torch.from_numpy(means), start.origin), generator)


def _trained(
    mixture: TaskMixture, training: MetaTraining, start: Initializations, generator: torch.Generator
) -> Initializations:
    """The initialisations after training; the exact population risk takes the place of the query set."""
    points = start.points.clone().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.iterations)
    for _ in range(training.iterations):
        tasks = mixture.sample(_BATCH, generator, shots=training.shots)
        chosen = Initializations(points.detach(), start.origin).chosen(tasks, training.rate)
        adapted = tasks.adapted(points[chosen], rate=training.rate, steps=training.steps)[-1]
        optimizer.zero_grad()
        tasks.excess_risk(adapted).mean().backward()
        optimizer.step()
        schedule.step()
    return Initializations(points.detach(), start.origin)
