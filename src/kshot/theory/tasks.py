"""The synthetic regression tasks of W21, section 5.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kshot.errors import check_positive


@dataclass(frozen=True)
class RegressionTasks:
    """Training tasks, and test tasks with a support and a query set.

    Attributes
    ----------
    inputs
        Points of the training tasks, (N, n, d); or a list of N tensors (n_i, d), which may differ in length.
    targets
        Their targets, (N, n), or (N, n, k) for vectors; or a list likewise.
    support, support_targets
        Support sets of the test tasks, (B, s, d), and their targets, (B, s) or (B, s, k).
    query, query_targets
        Query points of the test tasks, (B, q, d), and their targets, (B, q) or (B, q, k); None if these are unknown.
    """

    inputs: Tensor | Sequence[Tensor]
    targets: Tensor | Sequence[Tensor]
    support: Tensor
    support_targets: Tensor
    query: Tensor
    query_targets: Tensor | None = None

    def scaled(self, factor: float) -> RegressionTasks:
        """The tasks with all targets multiplied by `factor`."""
        targets = self.targets
        return replace(
            self,
            targets=factor * targets if isinstance(targets, Tensor) else [factor * part for part in targets],
            support_targets=factor * self.support_targets,
            query_targets=None if self.query_targets is None else factor * self.query_targets,
        )


def squared_distance_tasks(
    seed: int,
    *,
    tasks: int = 20,
    points: int = 10,
    test_tasks: int = 20,
    support: int = 5,
    query: int = 10,
    dimension: int = 10,
) -> RegressionTasks:
    """Tasks with a centre mu ~ N(0, I) and a width nu ~ U(1.3, 1.6): x ~ N(mu, nu^2 I), y = nu |x - mu|^2.

    Inputs are then scaled to norm sqrt(dimension), so that their coordinates have unit variance; targets are those of
    the points before scaling. All tensors are float64.

    Parameters
    ----------
    seed
        Names the tasks.
    tasks
        Training tasks.
    points
        Points per training task.
    test_tasks
        Test tasks.
    support, query
        Support and query points per test task.
    dimension
        Dimension d of the points.

    Raises
    ------
    ConfigError
        If a number is below 1.
    """
    check_positive(tasks=tasks, points=points, test_tasks=test_tasks, support=support, query=query, dimension=dimension)
    generator = np.random.default_rng(seed)
    inputs, targets = _sampled(generator, tasks, points, dimension)
    test_inputs, test_targets = _sampled(generator, test_tasks, support + query, dimension)
    return RegressionTasks(
        inputs,
        targets,
        test_inputs[:, :support],
        test_targets[:, :support],
        test_inputs[:, support:],
        test_targets[:, support:],
    )


def _sampled(generator: np.random.Generator, tasks: int, points: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Points (tasks, points, dimension) and targets (tasks, points)."""
    centre = generator.standard_normal((tasks, 1, dimension))
    width = generator.uniform(1.3, 1.6, (tasks, 1, 1))
    offset = width * generator.standard_normal((tasks, points, dimension))
    inputs = centre + offset
    targets = width[..., 0] * (offset**2).sum(-1)
    unit = inputs / np.linalg.norm(inputs, axis=-1, keepdims=True)
    return torch.from_numpy(unit * dimension**0.5), torch.from_numpy(targets)
