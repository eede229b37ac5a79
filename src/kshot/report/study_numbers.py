"""The numbers of a study: over tasks and over training seeds, beside the published ones, and compared in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kshot.intervals import MeanInterval, holm, mean_interval
from kshot.measures import ACCURACY, Measure
from kshot.recipes import Published


@dataclass(frozen=True, order=True)
class Column:
    """A kind of tasks: what one column of a table is about."""

    dataset: str
    ways: int
    shots: int
    domain: str = ""

    @property
    def title(self) -> str:
        """As a table's header."""
        shape = f"{self.ways}-way {self.shots}-shot" if self.ways > 1 else f"{self.shots}-shot"
        return f"{self.domain}, {shape}" if self.domain else shape


@dataclass(frozen=True, eq=False)
class Number:
    """What one row reached on one kind of tasks.

    Attributes
    ----------
    values
        The values per task of each training, by seed, all (tasks,), of the same tasks.
    data
        What identifies the tasks: numbers with another one are not compared.
    published
        What the paper has; None if nothing.
    measure
        What the values are.
    """

    values: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    data: str = ""
    published: Published | None = None
    measure: Measure = ACCURACY

    @property
    def per_task(self) -> NDArray[np.float64]:
        """(tasks,): the mean over trainings of each task's value."""
        return np.mean(list(self.values.values()), axis=0)

    @property
    def over_tasks(self) -> MeanInterval:
        """The mean, and the half-width of its interval over tasks."""
        return mean_interval(self.per_task)

    @property
    def over_seeds(self) -> MeanInterval:
        """The mean, and the half-width of its interval over trainings; nan for a single one."""
        return mean_interval([part.mean() for part in self.values.values()])

    @property
    def half_width(self) -> float:
        """The wider of the two intervals; of one training the one over tasks."""
        return float(np.nanmax([self.over_tasks.ci95, self.over_seeds.ci95]))

    @property
    def difference(self) -> float:
        """Measured minus published, in the unit of the publication; nan without one of the two."""
        if not self.values or self.published is None:
            return float("nan")
        return self.measure.scale * self.over_tasks.mean - self.published.accuracy

    @property
    def meets(self) -> bool | None:
        """Whether the intervals of measured and published meet; None if one of them has none."""
        if not self.values or self.published is None or self.published.ci95 is None:
            return None
        return abs(self.difference) <= self.measure.scale * self.half_width + self.published.ci95


@dataclass(frozen=True)
class Pair:
    """The paired difference of two rows on the same tasks, tested.

    Attributes
    ----------
    first, second
        The rows.
    difference, ci95
        Mean over tasks of first minus second, and the half-width of its interval.
    p, corrected
        Of a paired t-test over tasks, as it is and after Holm's correction for all pairs of the column.
    measure
        What the values are.
    """

    column: Column
    first: str
    second: str
    difference: float
    ci95: float
    p: float
    corrected: float
    measure: Measure = ACCURACY

    @property
    def text(self) -> str:
        """The difference with its interval."""
        return self.measure.text(self.difference, self.ci95, signed=True)

    @property
    def significant(self) -> bool:
        """At 5 percent over all pairs of the column."""
        return self.corrected < 0.05


def pairs_of(column: Column, numbers: Mapping[str, Number]) -> list[Pair]:
    """All pairs of rows that were measured on the same tasks of a column, with Holm's correction over all of them."""
    measured = [name for name, number in numbers.items() if number.values]
    found = []
    for first, second in itertools.combinations(measured, 2):
        one, other = numbers[first], numbers[second]
        if one.data != other.data or one.per_task.shape != other.per_task.shape:
            continue
        difference = mean_interval(one.per_task - other.per_task)
        p = float(stats.ttest_rel(one.per_task, other.per_task).pvalue)
        found.append((first, second, difference, 1.0 if np.isnan(p) else p))  # nan if all tasks agree
    corrected = holm([p for *_, p in found])
    return [
        Pair(column, first, second, *difference, p=p, corrected=float(after), measure=numbers[first].measure)
        for (first, second, difference, p), after in zip(found, corrected)
    ]


def text_of(number: Number) -> str:
    """The mean with its interval over tasks, and over trainings if there are several."""
    if not number.values:
        return ""
    mean, over_tasks = number.over_tasks
    text = number.measure.text(mean, over_tasks)
    if len(number.values) > 1:
        text += f" (± {number.measure.scale * number.over_seeds.ci95:.{number.measure.digits}f})"
    return text


def verdict_of(number: Number) -> str:
    """How measured and published compare, in a few words; empty without both."""
    if number.meets is None:
        return f"{number.difference:+.2f}" if number.difference == number.difference else ""
    return f"{number.difference:+.2f}, intervals {'meet' if number.meets else 'do not meet'}"


def columns_of(tables: Mapping[str, Mapping[Column, Number]]) -> Sequence[Column]:
    """All columns of the rows, in order."""
    return sorted({column for numbers in tables.values() for column in numbers})
