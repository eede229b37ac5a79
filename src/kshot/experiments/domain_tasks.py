"""The same number of tasks of each domain, which the views of TSA-MAML's groups measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray, TaskShape
from kshot.data.tasks import split_of
from kshot.errors import ConfigError, check_positive
from kshot.evaluation.agreement import Agreement
from kshot.evaluation.fit import check_images
from kshot.evaluation.task_loop import for_tasks
from kshot.learners import MAML, TSAMAML, Learner

Record = dict[str, float | int | str]  # one line of the table


@dataclass(frozen=True)
class DomainTasks:
    """The first tasks of each domain that has enough classes for one; a task keeps to one domain.

    Attributes
    ----------
    split
        The classes that tasks are drawn from.
    ways, shots
        Classes per task, and support images per class; there are no query images.
    count
        Tasks per domain.
    seed
        Names the set of tasks.
    """

    split: Split
    ways: int
    shots: int
    count: int
    seed: int

    @classmethod
    def of(cls, split: Split | Dataset, *, ways: int, shots: int, tasks: int, seed: int) -> DomainTasks:
        """The tasks of a split, or of a dataset's test split; ConfigError or DataError if there are none of this shape.

        Parameters
        ----------
        split
            The classes that tasks are drawn from.
        ways, shots, seed
            As for the class.
        tasks
            Tasks per domain.
        """
        check_positive(tasks=tasks)
        return cls(split_of(split), ways, shots, tasks, seed)

    @cached_property
    def sampler(self) -> EpisodeSampler:
        """Draws the tasks."""
        return EpisodeSampler(self.split, TaskShape(self.ways, self.shots, 0), seed=self.seed, within_domain=True)

    @cached_property
    def numbers(self) -> IntArray:
        """The numbers (M,) of all tasks, domain by domain."""
        return np.concatenate(list(self.by_domain.values()))

    @property
    def names(self) -> list[str]:
        """The domains."""
        return list(self.by_domain)

    @property
    def domains(self) -> NDArray[np.str_]:
        """The domain (M,) of each task."""
        return np.repeat(self.names, self.count)

    @cached_property
    def by_domain(self) -> dict[str, IntArray]:
        """The numbers (count,) of the tasks of each domain."""
        numbers = self.sampler.first_of_each_domain(self.count)
        domains = np.asarray(self.split.domains)[self.sampler.rows(numbers).classes[:, 0]]
        return {str(domain): numbers[domains == domain] for domain in np.unique(domains)}

    def __str__(self) -> str:
        place = f"{self.split.dataset}/{self.split.name}"
        return f"{self.ways}-way {self.shots}-shot, {self.count} tasks of each domain of {place}, seed {self.seed}"

    def columns(self) -> Record:
        """What a line of a table says of the tasks."""
        drawn: Record = {"dataset": self.split.dataset, "split": self.split.name, "ways": self.ways}
        return drawn | {"shots": self.shots, "tasks": self.count, "seed": self.seed}

    def checked(self, name: str, learner: Learner) -> TSAMAML:
        """The learner that a table calls `name`; ConfigError if it is no TSA-MAML, or does not fit the tasks."""
        if not isinstance(learner, TSAMAML):
            raise ConfigError(f"{name} is a {type(learner).__name__}, which has no groups; give runs of tsa-maml")
        self.check_fit(learner)
        return learner

    def check_fit(self, learner: Learner) -> None:
        """ConfigError if the learner does not fit the images, or the number of classes."""
        learner.check_ways(self.ways)
        check_images(learner, self.split)

    def measured(self, learner: MAML, function: Callable[[Episodes], Tensor], *, bar: str | None) -> NDArray[Any]:
        """What a function of prepared tasks returns for each of them, (M, ...).

        Parameters
        ----------
        learner
            Whose tasks they are; it says how many are held at once.
        function
            Tasks -> (B, ...).
        bar
            What a bar on the terminal is called; None for no bar.
        """

        @torch.no_grad()
        def of_batch(episodes: Episodes) -> Tensor:
            return torch.cat(learner.by_chunk(function, episodes))

        pieces = for_tasks(
            learner,
            of_batch,
            sampler=self.sampler,
            numbers=self.numbers,
            normalization=self.split.normalization,
            progress=bar,
        )
        return torch.cat(pieces).cpu().numpy()


def agreement_columns(agreed: Agreement) -> Record:
    """Mutual information and adjusted Rand index of two divisions of tasks, with their 95% intervals."""
    row: Record = {"nmi": agreed.nmi, "ari": agreed.ari}
    for measure, (low, high) in (("nmi", agreed.nmi_interval), ("ari", agreed.ari_interval)):
        row |= {f"{measure}_low95": low, f"{measure}_high95": high}
    return row
