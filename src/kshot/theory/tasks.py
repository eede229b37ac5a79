"""The synthetic regression tasks of W21, section 5.1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kshot.errors import ConfigError


@dataclass(frozen=True)
class RegressionTasks:
    """Training tasks, and test tasks with a support and a query set; float64.

    inputs (N, n, d), targets (N, n); support (B, s, d), support_targets (B, s); query (B, q, d), query_targets (B, q).
    """

    inputs: Tensor
    targets: Tensor
    support: Tensor
    support_targets: Tensor
    query: Tensor
    query_targets: Tensor


def squared_distance_tasks(
    seed: int,
    tasks: int = 20,
    points: int = 10,
    test_tasks: int = 20,
    support: int = 5,
    query: int = 10,
    dimension: int = 10,
) -> RegressionTasks:
    """Tasks with a centre mu ~ N(0, I) and a width nu ~ U(1.3, 1.6): x ~ N(mu, nu^2 I), y = nu |x - mu|^2.

    Inputs are then scaled to norm sqrt(dimension), so that their coordinates have unit variance; targets are those of
    the points before.
    """
    if min(tasks, points, test_tasks, support, query, dimension) < 1:
        raise ConfigError("tasks, points, test tasks, support, query and dimension all need to be 1 or more")
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
    centre = generator.standard_normal((tasks, 1, dimension))
    width = generator.uniform(1.3, 1.6, (tasks, 1, 1))
    offset = width * generator.standard_normal((tasks, points, dimension))
    inputs = centre + offset
    targets = width[..., 0] * (offset**2).sum(-1)
    unit = inputs / np.linalg.norm(inputs, axis=-1, keepdims=True)
    return torch.from_numpy(unit * dimension**0.5), torch.from_numpy(targets)
