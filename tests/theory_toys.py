"""What the tests of the theory share: small tasks."""

from __future__ import annotations

from kshot.theory import RegressionTasks, squared_distance_tasks


def few_tasks(seed: int = 0, **shape) -> RegressionTasks:
    small = {"tasks": 4, "points": 3, "test_tasks": 3, "support": 4, "query": 2, "dimension": 5}
    return squared_distance_tasks(seed, **(small | shape))
