"""What experiments that train networks of finite width have in common: their tasks, and when training ends."""

from __future__ import annotations

from collections.abc import Sequence

from kshot.errors import check_positive
from kshot.experiments.findings import Experiment
from kshot.theory.tasks import RegressionTasks, squared_distance_tasks


class TrainedNetworks(Experiment):
    """An experiment on networks that full-batch gradient descent trains until they fit the training tasks."""

    depth: int
    tasks: int
    points: int
    target_scale: float
    tolerance: float
    max_steps: int
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        check_positive(depth=self.depth, tasks=self.tasks, points=self.points, target_scale=self.target_scale)
        check_positive(tolerance=self.tolerance, max_steps=self.max_steps)

    def drawn(self, seed: int) -> RegressionTasks:
        """The tasks of one repetition, with 10 test tasks."""
        tasks = squared_distance_tasks(seed, tasks=self.tasks, points=self.points, test_tasks=10)
        return tasks.scaled(self.target_scale)
