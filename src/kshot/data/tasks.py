"""The tasks of a split, be they of images or of a family of functions."""

from __future__ import annotations

from typing import overload

from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import EpisodeSampler, Sampler, TaskShape
from kshot.data.regression import RegressionDataset, RegressionSampler, RegressionSplit
from kshot.errors import ConfigError

AnySplit = Split | RegressionSplit
AnyDataset = Dataset | RegressionDataset


def task_sampler(split: AnySplit, shape: TaskShape, seed: int, within_domain: bool | None = None) -> Sampler:
    """The tasks of a split, of images or of a family of functions; `within_domain` as for `EpisodeSampler`.

    Raises ConfigError where `within_domain` is asked of tasks that have none, and what either sampler does.
    """
    if isinstance(split, Split):
        return EpisodeSampler(split, shape, seed, within_domain=within_domain)
    if within_domain is not None:
        raise ConfigError(f"the tasks of {split.dataset} have no classes, so no domains; leave out within_domain")
    return RegressionSampler(split, shape, seed)


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
