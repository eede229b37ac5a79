"""The tasks of a split, of images or of a family of functions."""

from __future__ import annotations

from collections import Counter
from typing import get_args, overload

from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import EpisodeSampler, Sampler, TaskShape
from kshot.data.query_balance import UnbalancedSampler
from kshot.data.regression import RegressionDataset, RegressionSplit
from kshot.data.regression_sampler import RegressionSampler
from kshot.errors import ConfigError, check_choice
from kshot.measures import QueryBalance

AnySplit = Split | RegressionSplit
AnyDataset = Dataset | RegressionDataset


def task_sampler(
    split: AnySplit,
    shape: TaskShape,
    *,
    seed: int,
    within_domain: bool | None = None,
    query_balance: QueryBalance = "balanced",
) -> Sampler:
    """What draws the tasks of a split.

    Parameters
    ----------
    split
        Images, or a family of functions.
    shape
        Ways, shots and queries.
    seed
        Names the set of tasks.
    within_domain
        As for `EpisodeSampler`; None for a family of functions.
    query_balance
        How the query images are spread over the classes: "balanced", or as for `UnbalancedSampler`.

    Raises
    ------
    ConfigError
        If `within_domain` or `query_balance` is given for tasks without classes, or the shape has several ways in
        regression.
    DataError
        If a split of images is too small for the shape.
    """
    check_choice("query_balance", query_balance, get_args(QueryBalance))
    if isinstance(split, Split):
        if query_balance == "balanced":
            return EpisodeSampler(split, shape, seed=seed, within_domain=within_domain)
        return UnbalancedSampler(split, shape, balance=query_balance, seed=seed, within_domain=within_domain)
    if query_balance != "balanced":
        raise ConfigError(f"the tasks of {split.dataset} have no classes; leave out query_balance")
    if within_domain is not None:
        raise ConfigError(f"the tasks of {split.dataset} have no classes, so no domains; leave out within_domain")
    return RegressionSampler(split, shape, seed=seed)


def fitting_shape(
    split: Split, *, ways: int | None = None, shots: int | None = None, queries: int | None = None
) -> TaskShape:
    """A task shape with defaults that the split can fill: 5-way 5-shot 5-query, or less if classes or images are few.

    Parameters
    ----------
    split
        The classes and their images.
    ways, shots, queries
        None for the default; a number stays what it is.
    """
    sizes = Counter(split.domains).values() if split.tasks_within_domain else [split.num_classes]
    images = int(split.counts.min())
    if shots is None:
        shots = min(5, max(1, images - queries if queries is not None else (images + 1) // 2))
    if queries is None:
        queries = min(5, max(0, images - shots))
    return TaskShape(min(5, max(sizes)) if ways is None else ways, shots, queries)


@overload
def split_of(data: Split | Dataset) -> Split: ...
@overload
def split_of(data: AnySplit | AnyDataset) -> AnySplit: ...
def split_of(data: AnySplit | AnyDataset) -> AnySplit:
    """The split to measure on: the one that was given, or the test split of a dataset.

    Raises
    ------
    ConfigError
        If `data` is neither.
    """
    if isinstance(data, (Dataset, RegressionDataset)):
        return data.test
    if not isinstance(data, (Split, RegressionSplit)):
        raise ConfigError(f"{type(data).__name__} is not a split of a dataset; give one, such as data.test")
    return data
