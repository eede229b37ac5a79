"""Do the bounds on the risk of one and of several initialisations hold? (Z21, Theorems 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from kshot import seeding
from kshot.errors import ConfigError, check_positive
from kshot.experiments.excess_risk_figure import BIASED_COIN, COIN, MAML, TSA_MAML, draw, verdict
from kshot.experiments.excess_risk_measures import (
    EXPECTED_GRADIENT,
    coin_tosses,
    measure,
    squared_expected_gradient,
)
from kshot.experiments.findings import Experiment, Findings, Record, experiments, over_seeds
from kshot.experiments.initializations import CLUSTERED_TASKS, Initializations, MetaTraining, maml, tsa_maml
from kshot.intervals import mean_interval
from kshot.theory.task_mixture import Family, Linear, Logistic, MixtureTasks, TaskMixture

_FAMILIES: tuple[Family, ...] = (Linear(), Logistic())
_DISTANCE, _SPREAD = 4.0, 1.0  # of a group's centre from the origin, and of its tasks from the centre
_COIN_SHOTS = tuple(2**power for power in range(2, 13))
_COINS = {COIN: 0.5, BIASED_COIN: 0.7}  # probability of heads
_REDRAWN_TASKS, _DRAWS = 250, 16  # tasks, and sets of samples of each, for the mean gradient over samples


@experiments.register("excess-risk")
@dataclass(kw_only=True, eq=False)
class ExcessRisk(Experiment):
    """The risk of MAML and TSA-MAML against the bounds of Z21, Theorems 1 and 2.

    Linear and logistic regression tasks come from a mixture of groups whose risks are known exactly. Theorem 2 is also
    put to one gradient step on the tosses of a fair and of a biased coin, whose expectations are exact sums. It is read
    in two ways: as a bound of E_T |E_D[grad L]|^2, with the brackets inside the norm, and of the larger E|grad L|^2.

    Parameters
    ----------
    steps
        Numbers q of gradient steps on a task's samples, after each of which everything is measured.
    shots
        Samples K per task.
    rate
        Rate a of the gradient steps in units of 1 / L_s; at most 1, as the bounds require.
    groups
        Groups of tasks in the mixture, at most `dimension`.
    initializations
        Number m of initialisations of TSA-MAML.
    dimension
        Dimension d of inputs and weights.
    tasks
        Tasks that each seed is measured on.
    seeds
        Each seed gives a mixture, a training of both learners, and tasks; intervals are over seeds.
    """

    steps: Sequence[int] = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30)
    shots: int = 10
    rate: float = 1.0
    groups: int = 3
    initializations: int = 3
    dimension: int = 5
    tasks: int = 1000
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        check_positive(shots=self.shots, rate=self.rate, groups=self.groups, tasks=self.tasks)
        check_positive(initializations=self.initializations)
        if min(self.steps, default=-1) < 0:
            raise ConfigError(f"steps are {list(self.steps)}; give at least one, and none below 0")
        if len(set(self.seeds)) < 2:
            raise ConfigError(
                f"seeds are {list(self.seeds)}, but intervals are over seeds; give at least two different ones"
            )
        if self.rate > 1:
            raise ConfigError(f"rate is {self.rate}, in units of 1 / L_s, but the bounds hold up to 1 only; lower it")
        if self.groups > self.dimension:
            raise ConfigError(
                f"the orthogonal centres of {self.groups} groups do not fit into dimension {self.dimension}; "
                "give fewer groups"
            )
        if self.initializations > CLUSTERED_TASKS:
            raise ConfigError(
                f"k-means cannot find {self.initializations} groups among {CLUSTERED_TASKS} tasks; give fewer"
            )
        self.steps = sorted(self.steps)

    def run(self, *, progress: bool = False) -> Findings:
        """Measure on tasks of the mixture, then on the coin."""
        rows: list[Record] = []
        with tqdm(total=len(_FAMILIES) * len(self.seeds), unit="training", disable=not progress) as bar:
            for family in _FAMILIES:
                repeats = []
                for seed in self.seeds:
                    repeats.append(self._one_seed(family, seed))
                    bar.update()
                rows += [_over_seeds(cells) for cells in zip(*repeats)]
        rows += [_exact(name, heads, shots) for name, heads in _COINS.items() for shots in _COIN_SHOTS]
        protocol = (
            f"K = {self.shots}, d = {self.dimension}, rate {self.rate:g} / L_s, m = {self.initializations}, "
            f"{self.tasks} tasks per seed, {over_seeds(self.seeds)}"
        )
        return Findings(rows, verdict(rows, protocol), lambda figure: draw(figure, rows, protocol), (10.0, 12.5))

    def _one_seed(self, family: Family, seed: int) -> list[Record]:
        """One row per learner and number of steps."""
        generator = torch.Generator().manual_seed(int(seeding.key(seed, "excess-risk", family.name)) >> 1)
        mixture = TaskMixture.random(
            family,
            generator,
            groups=self.groups,
            dimension=self.dimension,
            distance=_DISTANCE,
            spread=_SPREAD,
        )
        training = MetaTraining(self.shots, self.rate / family.smoothness)
        one = maml(mixture, training, generator)
        several = tsa_maml(mixture, training, start=one, generator=generator, groups=self.initializations)
        tasks = mixture.sample(self.tasks, generator, shots=self.shots)
        redrawn = mixture.sample(_REDRAWN_TASKS, generator, shots=self.shots, draws=_DRAWS)
        rows: list[Record] = []
        for learner, learnt in ((MAML, one), (TSA_MAML, several)):
            measured = self._measured(learnt, tasks, redrawn, training.rate)
            for count, values in zip(self.steps, measured):
                rows.append({**_labels(family.name, learner, len(learnt.points), self.shots, count), **values})
        return rows

    def _measured(
        self, learnt: Initializations, tasks: MixtureTasks, redrawn: MixtureTasks, rate: float
    ) -> Iterator[dict[str, float]]:
        """What `measure` says of each number of steps, the mean gradient over samples, and how loose Theorem 1 is."""
        start = learnt.starts(redrawn, rate)
        gradients = squared_expected_gradient(redrawn, start, rate=rate, steps=self.steps, draws=_DRAWS)
        start = learnt.starts(tasks, rate)
        measured = measure(tasks, start, rate=rate, shots=self.shots, steps=self.steps)
        for values, gradient in zip(measured, gradients):
            yield _with_ratios(values | {EXPECTED_GRADIENT: gradient})


def _labels(regression: str, learner: str, points: int, shots: int, steps: int) -> Record:
    """The columns that say which cell a row is."""
    names = ("regression", "learner", "initializations", "shots", "steps")
    return dict(zip(names, (regression, learner, points, shots, steps)))


def _over_seeds(cells: Sequence[Record]) -> Record:
    """One row out of those of all seeds, every number with its interval."""
    row: Record = {}
    for name, value in cells[0].items():
        row[name] = value
        if isinstance(value, float):
            row[name], row[f"{name}_ci95"] = mean_interval([float(cell[name]) for cell in cells])
    return row


def _exact(name: str, heads: float, shots: int) -> Record:
    """The row of a coin, whose expectations have no sampling error: half-widths of 0."""
    row: Record = dict(_labels(name, "start at the optimum", 1, shots, 1))
    for column, value in _with_ratios(coin_tosses(shots, heads=heads)).items():
        row |= {column: value, f"{column}_ci95": 0.0}
    return row


def _with_ratios(values: Mapping[str, float]) -> dict[str, float]:
    """The values and, for both forms of Theorem 1, the bound over the excess risk."""
    risk = values["excess_risk"]
    return {**values, "theorem1_over_risk": values["theorem1"] / risk, "convex_over_risk": values["convex"] / risk}
