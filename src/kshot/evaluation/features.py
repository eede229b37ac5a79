"""A trained learner as evaluation uses it: the mode it is in, and the features that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kshot.data.augmentation import normalize
from kshot.data.dataset import Split
from kshot.data.episodes import IntArray
from kshot.errors import ConfigError
from kshot.learners.base import FeatureLearner, Learner
from kshot.learners.training_split import check_observed
from kshot.measures import Statistics
from kshot.memory import keep_freed_memory

_PIXELS_AT_ONCE = 250 * 32 * 32  # of images that go through the backbone together; its maps grow with them
_IMAGES_AT_ONCE = 250
_PRECISIONS = ("float32", "bf16")


@contextmanager
def evaluating(
    learner: Learner, precision: Literal["float32", "bf16"], statistics: Statistics | None = None
) -> Iterator[None]:
    """The learner in evaluation mode, in this precision and with these statistics, and afterwards as it was.

    statistics: None for those that the learner usually takes.
    Raises ConfigError for an unknown precision, and statistics that the learner does not offer.
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
    """ConfigError for an unknown precision, and for statistics that the learner does not offer."""
    if precision not in _PRECISIONS:
        raise ConfigError(f"there is no precision {precision!r}; choose one of: {', '.join(_PRECISIONS)}")
    offered = learner.statistics_offered
    if statistics is not None and statistics not in offered:
        raise ConfigError(
            f"{type(learner).__name__} was not trained for {statistics} statistics; choose one of: {', '.join(offered)}"
        )


def device_of(learner: Learner) -> torch.device:
    """The device that the learner's parameters live on."""
    return next(learner.parameters()).device


@torch.no_grad()
def extract_features(
    learner: FeatureLearner,
    split: Split,
    precision: Literal["float32", "bf16"] = "float32",
    progress: bool = False,
) -> Tensor:
    """Features (M, D) of every image of a split, each computed once, on the learner's device."""
    check_observed(learner)
    count = len(split.images)
    if device_of(learner).type == "cpu":
        keep_freed_memory()
    with evaluating(learner, precision), tqdm(total=count, unit="img", desc="features", disable=not progress) as bar:
        return features_at(learner, split, np.arange(count), bar.update)


def features_at(
    learner: FeatureLearner, split: Split, rows: IntArray, count: Callable[[int], object] = lambda images: None
) -> Tensor:
    """Features (M, D) of the images at these rows, some images at a time; `count` is told how many were done."""
    _, height, width = split.image_shape
    at_once = max(1, min(_IMAGES_AT_ONCE, _PIXELS_AT_ONCE // (height * width)))
    pieces = []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        pieces.append(learner.features(normalize(split.gather(some, device_of(learner)), split.normalization)))
        count(len(some))
    return torch.cat(pieces)
