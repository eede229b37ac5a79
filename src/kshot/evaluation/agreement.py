"""How well groups of tasks agree with the domains that the tasks come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.data.regression_sampler import RegressionSampler
from kshot.data.tasks import AnySplit, task_sampler
from kshot.evaluation.task_loop import for_tasks
from kshot.learners.base import Learner
from kshot.learners.initialization import InitializationLearner

_DRAWS = 1000  # of the tasks, with replacement


@dataclass(frozen=True)
class Agreement:
    """Agreement of groups and domains: 1 if either says all about the other.

    Attributes
    ----------
    nmi
        Mutual information, normalised by the mean of the two entropies; at least 0.
    ari
        Adjusted Rand index: 0 is what groups that are drawn at random have on average.
    nmi_interval, ari_interval
        95% percentile intervals over tasks drawn again with replacement; the groups stay as they are.
    """

    nmi: float
    ari: float
    nmi_interval: tuple[float, float]
    ari_interval: tuple[float, float]


def group_agreement(
    learner: Learner,
    split: AnySplit,
    shape: TaskShape,
    *,
    tasks: int,
    seed: int,
    within_domain: bool | None = None,
    precision: Literal["float32", "bf16"] = "float32",
) -> Agreement | None:
    """Agreement of a learner's groups with domains, on the first tasks of a split.

    Parameters
    ----------
    learner
        Any learner.
    split
        The classes that tasks are drawn from.
    shape
        Ways, shots and queries of the tasks.
    tasks
        Number of tasks.
    seed, within_domain, precision
        As for `evaluate`.

    Returns
    -------
    Agreement or None
        None for a learner without groups, and for tasks of a single domain or of several at once.
    """
    numbers = np.arange(tasks)
    if learner.groups == 1:
        return None
    sampler = task_sampler(split, shape, seed=seed, within_domain=within_domain)
    domains = sampler.domains(numbers) if isinstance(sampler, (EpisodeSampler, RegressionSampler)) else None
    if domains is None or len(set(domains)) == 1:
        return None

    @torch.no_grad()
    def assigned(episodes: Episodes) -> Tensor:
        if isinstance(learner, InitializationLearner):
            return torch.cat(learner.by_chunk(learner.assigned, episodes))
        return learner.assigned(episodes)

    groups = for_tasks(
        learner,
        assigned,
        sampler=sampler,
        numbers=numbers,
        normalization=split.normalization,
        precision=precision,
    )
    return agreement(torch.cat(groups).cpu().numpy(), domains)


def agreement(groups: NDArray[Any], domains: NDArray[Any], *, seed: int = 0) -> Agreement:
    """Agreement of the groups (M,) of tasks with their domains (M,).

    Parameters
    ----------
    groups, domains
        A label for each task, of any type.
    seed
        Of the draws for the intervals.
    """
    (names, g), (others, d) = (np.unique(labels, return_inverse=True) for labels in (groups, domains))
    counts = np.bincount(g * len(others) + d, minlength=len(names) * len(others))
    # tasks drawn again are cells of the table drawn again
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), _DRAWS)
    tables = np.concatenate([counts[None], drawn]).reshape(-1, len(names), len(others)).astype(np.float64)
    nmi, ari = _mutual_information(tables), _adjusted_rand(tables)
    edges = [tuple(np.percentile(values[1:], (2.5, 97.5)).tolist()) for values in (nmi, ari)]
    return Agreement(float(nmi[0]), float(ari[0]), *edges)


def _mutual_information(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised mutual information (T,) of tables (T, groups, domains) of counts; 1 for a single group and domain."""
    joint = tables / tables.sum((1, 2), keepdims=True)
    rows, columns = entr(joint.sum(2)).sum(1), entr(joint.sum(1)).sum(1)
    both = rows + columns
    information = both - entr(joint).sum((1, 2))
    return np.where(both > 0, 2 * information / np.where(both > 0, both, 1), 1).clip(0, 1)


def _adjusted_rand(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted Rand index (T,) of tables (T, groups, domains) of counts (Hubert and Arabie 1985, eq. 5)."""

    def pairs(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return (counts * (counts - 1) / 2).reshape(len(counts), -1).sum(1)

    together, rows, columns = pairs(tables), pairs(tables.sum(2)), pairs(tables.sum(1))
    expected = rows * columns / pairs(tables.sum((1, 2))[:, None])
    most = (rows + columns) / 2
    return np.where(most > expected, (together - expected) / np.where(most > expected, most - expected, 1), 1)
