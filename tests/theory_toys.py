"""What the tests of the theory share: small tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.theory import RegressionTasks, TaskMixture, squared_distance_tasks
from kshot.theory.task_mixture import Family


def few_tasks(seed: int = 0, **shape) -> RegressionTasks:
    small = {"tasks": 4, "points": 3, "test_tasks": 3, "support": 4, "query": 2, "dimension": 5}
    return squared_distance_tasks(seed, **(small | shape))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(count: int, dimension: int, length: float, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, dimension, generator=generator(seed), dtype=torch.float64)
    return length * torch.nn.functional.normalize(drawn, dim=1)


def mixture_of(family: Family, groups: int = 3, dimension: int = 5) -> TaskMixture:
    return TaskMixture.random(family, generator(), groups=groups, dimension=dimension, distance=4.0, spread=1.0)
