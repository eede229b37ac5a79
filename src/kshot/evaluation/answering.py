"""How tasks are answered: from features that are computed once, if a head is all that adapts, or from their images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.data.dataset import Normalization
from kshot.data.episodes import Episodes, EpisodeSampler, Sampler, TaskShape
from kshot.data.tasks import AnySplit
from kshot.evaluation.features import FeatureSampler
from kshot.evaluation.task_loop import TASKS_AT_ONCE
from kshot.learners.base import FeatureLearner, Learner
from kshot.learners.initialization import InitializationLearner
from kshot.solvers.adaptation import Adaptation, HeadAdaptation

_CHUNK_BYTES = 1 << 27  # features or images that one chunk of tasks may gather: keeps memory flat, stays in fast caches


@dataclass(frozen=True)
class Answering:
    """How tasks are answered: drawn by a sampler, normalised, so many at once, and scored (B, T, N)."""

    sampler: Sampler
    normalization: Normalization | None
    scores: Callable[[Episodes], Tensor]
    at_once: int


def answering_of(
    learner: Learner,
    sampler: Sampler,
    *,
    shape: TaskShape,
    split: AnySplit,
    adaptation: Adaptation | None,
    features: Tensor | None,
) -> Answering:
    """Answer tasks from features if a head is all that adapts, or else from their images or vectors."""
    chunk = _CHUNK_BYTES // (4 * shape.ways * (shape.shots + shape.queries))  # of values per image
    if (
        isinstance(sampler, EpisodeSampler)
        and isinstance(learner, FeatureLearner)
        and isinstance(adaptation, HeadAdaptation)
    ):
        source = FeatureSampler(learner, sampler, features)
        return Answering(source, None, _head_scores(adaptation), max(1, chunk // learner.backbone.feature_size))
    at_once = max(1, chunk // math.prod(split.image_shape))
    if isinstance(sampler, EpisodeSampler):
        at_once = min(at_once, TASKS_AT_ONCE)
    if isinstance(learner, FeatureLearner) and adaptation is not None:
        return Answering(sampler, split.normalization, lambda episodes: adaptation.scores(learner, episodes), at_once)
    if isinstance(learner, InitializationLearner) and isinstance(adaptation, HeadAdaptation):
        by_head = functools.partial(learner.scores_of_head, adaptation)
        return Answering(sampler, split.normalization, by_head, at_once)
    return Answering(sampler, split.normalization, learner.scores, at_once)


def _head_scores(adaptation: HeadAdaptation) -> Callable[[Episodes], Tensor]:
    """Scores (B, T, N) of tasks that hold features."""

    @torch.no_grad()
    def scores(episodes: Episodes) -> Tensor:
        head = adaptation.head(episodes.support, episodes.support_labels, episodes.ways)
        return head.scores(episodes.query)

    return scores
