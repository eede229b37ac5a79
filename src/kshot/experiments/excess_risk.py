"""Experiment: Theorems 1 and 2 of Zhou et al. (2021), where every quantity in them is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from kshot import seeding
from kshot.errors import ConfigError, check_positive
from kshot.experiments.excess_risk_figure import COIN, MAML, TSA_MAML, Row, draw, verdict
from kshot.experiments.findings import Experiment, Findings, experiments
from kshot.intervals import mean_interval
from kshot.theory.bounds import MEASURED, fair_coin, measure
from kshot.theory.initializations import CLUSTERED_TASKS, Training, maml, tsa_maml
from kshot.theory.task_mixture import Family, Linear, Logistic, TaskMixture

_FAMILIES: tuple[Family, ...] = (Linear(), Logistic())
_DISTANCE, _SPREAD = 4.0, 1.0  # of a group's centre from the origin, and of its tasks from the centre
_COIN_SHOTS = tuple(2**power for power in range(2, 13))


@experiments.register("excess-risk")
class ExcessRisk(Experiment):
    """Theorems 1 and 2 of TSA-MAML's paper beside exactly known risks, for one initialisation and for m.

    Linear and logistic regression tasks from a mixture of groups; and, for Theorem 2, one gradient step on the tosses
    of a fair coin, where expectations are exact sums.

    steps: numbers q of gradient steps on a task's samples, after each of which everything is measured
    shots: samples K a task
    rate: rate a of the gradient steps in units of 1 / L_s, 1 at most, as the bounds require
    groups: groups of tasks in the mixture, the dimension at most
    initializations: number m of initialisations of TSA-MAML
    dimension: dimension d of inputs and weights
    tasks: tasks that each seed is measured on
    seeds: each gives a mixture, a training of both learners and tasks; intervals are over seeds
    """

    def __init__(
        self,
        steps: Sequence[int] = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30),
        shots: int = 10,
        rate: float = 1.0,
        groups: int = 3,
        initializations: int = 3,
        dimension: int = 5,
        tasks: int = 1000,
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
    ) -> None:
        check_positive(shots=shots, rate=rate, groups=groups, initializations=initializations, tasks=tasks)
        if min(steps, default=-1) < 0:
            raise ConfigError(f"steps are {list(steps)}, but must be numbers from 0, one at least")
        if len(set(seeds)) < 2:
            raise ConfigError(
                f"seeds are {list(seeds)}, but intervals are over seeds; give two different ones at least"
            )
        if rate > 1:
            raise ConfigError(f"rate is {rate}, in units of 1 / L_s, but the bounds only hold up to 1; lower it")
        if groups > dimension:
            raise ConfigError(
                f"the orthogonal centres of {groups} groups do not fit into dimension {dimension}; give fewer groups"
            )
        if initializations > CLUSTERED_TASKS:
            raise ConfigError(f"k-means cannot find {initializations} groups among {CLUSTERED_TASKS} tasks; give fewer")
        self.steps, self.shots, self.rate, self.groups = sorted(steps), shots, rate, groups
        self.initializations, self.dimension, self.tasks, self.seeds = initializations, dimension, tasks, seeds

    def run(self, progress: bool = False) -> Findings:
        """Measure on tasks of the mixture, then on the coin."""
        rows: list[Row] = []
        with tqdm(total=len(_FAMILIES) * len(self.seeds), unit="training", disable=not progress) as bar:
            for family in _FAMILIES:
                repeats = []
                for seed in self.seeds:
                    repeats.append(self._one_seed(family, seed))
                    bar.update()
                rows += [_over_seeds(cells) for cells in zip(*repeats)]
        rows += [_exact(shots) for shots in _COIN_SHOTS]
        protocol = (
            f"K = {self.shots}, d = {self.dimension}, rate {self.rate:g} / L_s, m = {self.initializations}, "
            f"{len(self.seeds)} seeds of {self.tasks} tasks"
        )
        return Findings(rows, verdict(rows, protocol), lambda figure: draw(figure, rows, protocol), (10.0, 12.5))

    def _one_seed(self, family: Family, seed: int) -> list[Row]:
        """A row for each learner and number of steps."""
        generator = torch.Generator().manual_seed(int(seeding.key(seed, "excess-risk", family.name)) >> 1)
        mixture = TaskMixture.random(family, self.groups, self.dimension, _DISTANCE, _SPREAD, generator)
        training = Training(self.shots, self.rate / family.smoothness)
        one = maml(mixture, training, generator)
        several = tsa_maml(mixture, training, one, self.initializations, generator)
        tasks = mixture.sample(self.tasks, self.shots, generator)
        rows: list[Row] = []
        for learner, learnt in ((MAML, one), (TSA_MAML, several)):
            start = learnt.starts(tasks, training.rate)
            measured = measure(tasks, start, training.rate, self.shots, self.steps)
            for count, values in zip(self.steps, measured):
                rows.append(_labels(family.name, learner, len(learnt.points), self.shots, count) | values)
        return rows


def _labels(regression: str, learner: str, points: int, shots: int, steps: int) -> dict[str, float | int | str]:
    names = ("regression", "learner", "initializations", "shots", "steps")
    return dict(zip(names, (regression, learner, points, shots, steps)))


def _over_seeds(cells: Sequence[Row]) -> Row:
    """One row out of those of all seeds: measured values with their intervals, means of the bounds."""
    row = dict(cells[0])
    for name, value in cells[0].items():
        if name in MEASURED:
            row[name], row[f"{name}_ci95"] = mean_interval([float(cell[name]) for cell in cells])
        elif isinstance(value, float):
            row[name] = float(np.mean([float(cell[name]) for cell in cells]))
    return row


def _exact(shots: int) -> Row:
    """The row of the fair coin, whose expectations have no sampling error."""
    no_error = {f"{name}_ci95": 0.0 for name in MEASURED}
    return _labels(COIN, "start at 0", 1, shots, 1) | fair_coin(shots) | no_error
