"""A trained learner as evaluation uses it: the mode that it is in, and the features that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from kshot.data.augmentation import normalize
from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray
from kshot.data.tasks import split_of
from kshot.errors import ConfigError
from kshot.learners.base import FeatureLearner, Learner
from kshot.learners.training_split import check_observed
from kshot.measures import Statistics
from kshot.memory import keep_freed_memory

_PIXELS_AT_ONCE = 250 * 32 * 32  # per pass through the backbone, whose maps grow with them
_IMAGES_AT_ONCE = 250
_PRECISIONS = ("float32", "bf16")


@contextmanager
def evaluating(
    learner: Learner, precision: Literal["float32", "bf16"], *, statistics: Statistics | None = None
) -> Iterator[None]:
    """Put the learner into evaluation mode, in this precision and with these statistics; at the end it is as before.

    Parameters
    ----------
    learner
        The learner.
    precision, statistics
        As for `evaluate`.

    Raises
    ------
    ConfigError
        If there is no such precision, or the learner does not offer the statistics.
    """
    check_mode(learner, precision, statistics)
    before = learner.training, learner.precision, learner.statistics_at_test
    learner.eval()
    learner.precision, learner.statistics_at_test = precision, statistics or learner.statistics_offered[0]
    try:
        yield
    finally:
        learner.train(before[0])
        _, learner.precision, learner.statistics_at_test = before


def check_mode(learner: Learner, precision: str, statistics: Statistics | None) -> None:
    """ConfigError if there is no such precision, or the learner does not offer the statistics."""
    if precision not in _PRECISIONS:
        raise ConfigError(f"there is no precision {precision!r}; choose one of: {', '.join(_PRECISIONS)}")
    offered = learner.statistics_offered
    if statistics is not None and statistics not in offered:
        raise ConfigError(
            f"{type(learner).__name__} was not trained for {statistics} statistics; choose one of: {', '.join(offered)}"
        )


def device_of(learner: nn.Module) -> torch.device:
    """The device that the learner's parameters live on; the CPU if it has none."""
    return next((parameter.device for parameter in learner.parameters()), torch.device("cpu"))


@torch.no_grad()
def extract_features(
    learner: FeatureLearner,
    split: Split | Dataset,
    *,
    precision: Literal["float32", "bf16"] = "float32",
    progress: bool = False,
) -> Tensor:
    """The features of every image of a split, each computed once.

    Parameters
    ----------
    learner
        A learner whose backbone is frozen while it learns a task.
    split
        The images, such as ``data.test``; a dataset stands for its test split.
    precision
        What the backbone computes in.
    progress
        Show a bar on the terminal.

    Returns
    -------
    Tensor
        Features (M, D), float32, of the M images in their order, on the learner's device.

    Raises
    ------
    ConfigError
        If the learner has no features since tasks change its network, or the split holds no images.
    """
    split = split_of(split)
    if not isinstance(learner, FeatureLearner):
        raise ConfigError(f"{type(learner).__name__} changes its network for each task: images have no fixed features")
    if not isinstance(split, Split):
        raise ConfigError(f"{split.dataset} are tasks of regression and hold no images")
    check_observed(learner)
    count = len(split.images)
    if device_of(learner).type == "cpu":
        keep_freed_memory()
    with evaluating(learner, precision), tqdm(total=count, unit="img", desc="features", disable=not progress) as bar:
        return features_at(learner, split, np.arange(count), count=bar.update)


def features_at(
    learner: FeatureLearner, split: Split, rows: IntArray, *, count: Callable[[int], object] = lambda images: None
) -> Tensor:
    """Features (M, D) of the images at these rows, some images at a time; `count` is told how many were done."""
    _, height, width = split.image_shape
    at_once = max(1, min(_IMAGES_AT_ONCE, _PIXELS_AT_ONCE // (height * width)))
    pieces = []
    for start in range(0, len(rows), at_once):
        batch = rows[start : start + at_once]
        pieces.append(learner.features(normalize(split.gather(batch, device_of(learner)), split.normalization)))
        count(len(batch))
    return torch.cat(pieces)


class FeatureSampler:
    """Draws tasks that hold features (D,) where those of another sampler hold images.

    Parameters
    ----------
    learner
        The learner whose features they are.
    sampler
        Draws the tasks.
    features
        Features (M, D) of the whole split; None to compute those of the images of a batch of tasks, batch by batch.
    """

    def __init__(self, learner: FeatureLearner, sampler: EpisodeSampler, features: Tensor | None) -> None:
        self.learner, self.sampler, self.features = learner, sampler, features

    @torch.no_grad()
    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with these numbers: support (B, N*K, D) and query (B, N*Q, D), on `device`."""
        rows, features = self.sampler.rows(numbers), self.features
        support, query = (part.reshape(len(numbers), -1) for part in (rows.support, rows.query))
        if features is None:
            needed, places = np.unique(np.concatenate([support, query], 1), return_inverse=True)
            features = features_at(self.learner, self.sampler.split, needed)
            support, query = np.split(places.reshape(len(numbers), -1), [support.shape[1]], 1)
        support_labels, query_labels = (torch.from_numpy(labels).to(device) for labels in rows.labels())
        return Episodes(
            support=_gathered(features, support).to(device),
            support_labels=support_labels,
            query=_gathered(features, query).to(device),
            query_labels=query_labels,
            classes=torch.from_numpy(rows.classes).to(device),
            keys=rows.keys,
        )


def _gathered(features: Tensor, rows: IntArray) -> Tensor:
    """Features (B, M, D) at the rows (B, M)."""
    flat = torch.from_numpy(rows.reshape(-1)).to(features.device)
    return features.index_select(0, flat).view(len(rows), -1, features.shape[1])
