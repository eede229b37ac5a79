"""The protocol: the same tasks for every learner, its features or its images, its way to learn a task."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from kshot.data.augmentation import prepare_images
from kshot.data.dataset import Split
from kshot.data.episodes import EpisodeSampler, IntArray, Sampler, TaskShape
from kshot.data.tasks import AnySplit, task_sampler
from kshot.errors import ConfigError, DivergenceError
from kshot.evaluation.features import check_mode, device_of, evaluating, extract_features, features_at
from kshot.evaluation.results import Evaluation, Protocol
from kshot.learners.base import FeatureLearner, Learner, learners, task_losses
from kshot.learners.training_split import check_observed
from kshot.measures import Statistics
from kshot.solvers.adaptation import Adaptation, HeadAdaptation, adaptations

_CHUNK_BYTES = 1 << 27  # features or images that one chunk of tasks may gather: keeps memory flat, stays in fast caches
_TASKS_AT_ONCE = 16  # that go through the network image by image
_FEATURE_BYTES = 1 << 32  # of a whole split, above which tasks compute their own: R2-D2's at 84 px are 200 kB an image


def shared_features(
    learner: Learner,
    split: AnySplit,
    adaptation: Adaptation | str | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    progress: bool = False,
) -> Tensor | None:
    """What `extract_features` returns, to be shared by several calls of `evaluate`.

    None where there are no such features, since tasks change the network, and where they are too many to keep.
    """
    chosen = _adaptation_of(learner, adaptation)
    if not (isinstance(learner, FeatureLearner) and isinstance(split, Split) and isinstance(chosen, HeadAdaptation)):
        return None
    if 4 * len(split.images) * learner.backbone.feature_size > _FEATURE_BYTES:
        return None
    return extract_features(learner, split, precision, progress)


def evaluate(
    learner: Learner,
    split: AnySplit,
    ways: int | None = None,
    shots: int = 5,
    queries: int = 15,
    tasks: int = 2000,
    seed: int = 0,
    within_domain: bool | None = None,
    adaptation: Adaptation | str | None = None,
    features: Tensor | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    statistics: Statistics | None = None,
    progress: bool = False,
) -> Evaluation:
    """Accuracy of a learner on `tasks` tasks of a split: task i is the same for every learner and on every machine.

    Of tasks of regression, the mean squared error on their query points.

    ways: classes a task; None for those that the learner is bound to, or else 5. Tasks of regression have none.
    shots: support images a class, or support points.
    queries: query images a class, or query points.
    tasks: number of tasks, at least 2; the interval shrinks with its square root.
    seed: names the set of tasks.
    within_domain: draw all classes of a task from one domain (alphabet, superclass, domain), or from all of them; None
        as the split says.
    adaptation: how a frozen feature learner learns a task, by name or instance; None for the learner's own.
    features: what `extract_features` returned, to be shared by several calls; None to compute it here.
    precision: what the backbone computes in.
    statistics: where BatchNorm statistics come from, for learners that adapt weights: the whole query set
        ("transductive") or the support set plus one query image at a time ("inductive"); None for the learner's usual.
    progress: show bars on the terminal.

    Raises DataError where the split is too small for the shape, ConfigError for an adaptation or features that do not
    fit, and for options without sense.
    """
    started = time.perf_counter()
    shape, sampler, chosen = plan_evaluation(
        learner,
        split,
        ways=ways,
        shots=shots,
        queries=queries,
        tasks=tasks,
        seed=seed,
        within_domain=within_domain,
        adaptation=adaptation,
        precision=precision,
        statistics=statistics,
    )
    if features is None:
        features = shared_features(learner, split, chosen, precision, progress)
    else:
        _check_features(features, split)
    answer, chunk = _answering(learner, sampler, shape, split, chosen, features)
    values, classes = np.empty(tasks), np.empty(tasks, np.int64)
    with (
        evaluating(learner, precision, statistics),
        tqdm(total=tasks, unit="task", desc=f"{shots}-shot tasks", disable=not progress) as bar,
    ):
        used = learner.statistics_at_test
        for start in range(0, tasks, chunk):
            numbers = np.arange(start, min(start + chunk, tasks))
            with _naming_tasks_from(start):
                answers = answer(numbers)
            values[numbers], classes[numbers] = answers.values(), answers.classes.cpu().numpy()
            bar.update(len(numbers))
    drawn = departure(split, within_domain)
    return Evaluation(
        learner=learners.name_of(learner),
        adaptation=describe_adaptation(chosen),
        protocol=Protocol(split.dataset, split.name, shape.ways, shots, queries, tasks, seed, used, drawn),
        values=values,
        seconds=time.perf_counter() - started,
        own_adaptation=describe_adaptation(chosen) == describe_adaptation(getattr(learner, "adaptation", None)),
        precision=precision,
        domains=_domains(sampler, classes),
        measure=split.measure,
    )


def plan_evaluation(
    learner: Learner,
    split: AnySplit,
    *,
    ways: int | None,
    shots: int,
    queries: int,
    tasks: int,
    seed: int,
    within_domain: bool | None,
    adaptation: Adaptation | str | None,
    precision: str,
    statistics: Statistics | None,
) -> tuple[TaskShape, Sampler, Adaptation | None]:
    """The tasks of `evaluate` with these options, and how they are learnt.

    Refuses what cannot be measured, by the errors that `evaluate` raises, before any work.
    """
    if queries < 1:
        raise ConfigError(f"queries is {queries}, but must be at least 1: there is nothing to measure without any")
    if tasks < 2:
        raise ConfigError(f"tasks is {tasks}, but must be at least 2: one task alone has no confidence interval")
    check_mode(learner, precision, statistics)
    ways = usual_ways(learner, split) if ways is None else ways
    learner.check_ways(ways)
    check_observed(learner)
    shape = TaskShape(ways, shots, queries)
    return shape, task_sampler(split, shape, seed, within_domain), _adaptation_of(learner, adaptation)


def usual_ways(learner: Learner, split: AnySplit) -> int:
    """The classes a task where nobody says: those that the learner is bound to, or else as the split has it."""
    return split.usual_ways if learner.bound_ways is None else learner.bound_ways


@dataclass(frozen=True)
class _Answers:
    """What a learner made of B tasks: scores (B, T, N), the labels (B, T) or (B, T, N), and the first class (B,)."""

    scores: Tensor
    labels: Tensor
    classes: Tensor

    def values(self) -> NDArray[np.float64]:
        """The accuracy, or the mean squared error, of each task."""
        if self.labels.is_floating_point():
            return task_losses(self.scores.double(), self.labels.double()).cpu().numpy()
        return (self.scores.argmax(-1) == self.labels).cpu().numpy().mean(1)


def _domains(sampler: Sampler, classes: IntArray) -> list[str] | None:
    """The domain of each task whose first class is one of `classes`; None where tasks mix domains, or have none."""
    if not isinstance(sampler, EpisodeSampler) or not sampler.within_domain:
        return None
    return [sampler.split.domains[number] for number in classes]


def _check_features(features: Tensor, split: AnySplit) -> None:
    images = len(split.images) if isinstance(split, Split) else 0
    if len(features) != images:
        raise ConfigError(
            f"{len(features)} features were given, but {split.dataset}/{split.name} has {images} images; "
            f"give what extract_features returns for this split"
        )


@contextmanager
def _naming_tasks_from(start: int) -> Iterator[None]:
    """A task that diverges is named by its number, of which the first of the batch is `start`."""
    try:
        yield
    except DivergenceError as error:
        if error.task is not None:
            error.task += start
        raise


def departure(split: AnySplit, within_domain: bool | None) -> bool | None:
    """`within_domain` for a `Protocol`: None where the tasks are those that the split itself asks for."""
    return None if within_domain == split.tasks_within_domain else within_domain


def describe_adaptation(adaptation: Adaptation | None) -> str:
    """The adaptation's description, or "own" for a learner that learns tasks in its own way."""
    return "own" if adaptation is None else adaptation.description


def _adaptation_of(learner: Learner, adaptation: Adaptation | str | None) -> Adaptation | None:
    if not isinstance(learner, FeatureLearner):
        if adaptation is not None:
            raise ConfigError(f"{type(learner).__name__} adapts in its own way; leave out the adaptation")
        return None
    if adaptation is None:
        return learner.adaptation
    return adaptations[adaptation]() if isinstance(adaptation, str) else adaptation


def _answering(
    learner: Learner,
    sampler: Sampler,
    shape: TaskShape,
    split: AnySplit,
    adaptation: Adaptation | None,
    features: Tensor | None,
) -> tuple[Callable[[IntArray], _Answers], int]:
    """What answers the tasks with some numbers, and how many it had better be asked at once."""
    most = _CHUNK_BYTES
    if (
        isinstance(sampler, EpisodeSampler)
        and isinstance(learner, FeatureLearner)
        and isinstance(adaptation, HeadAdaptation)
    ):
        answer, image_bytes = _from_features(learner, features, adaptation, sampler), 4 * learner.backbone.feature_size
    else:
        answer, image_bytes = _from_images(learner, sampler, split, adaptation), 4 * math.prod(split.image_shape)
        if isinstance(sampler, EpisodeSampler):  # whose tasks take long, and whose maps take memory
            most = _TASKS_AT_ONCE
    return answer, max(1, min(most, _CHUNK_BYTES // (image_bytes * shape.ways * (shape.shots + shape.queries))))


def _from_features(
    learner: FeatureLearner, features: Tensor | None, adaptation: HeadAdaptation, sampler: EpisodeSampler
) -> Callable[[IntArray], _Answers]:
    """Answers from the features of the whole split, or, where there are none, from those of the tasks at hand."""

    @torch.no_grad()
    def answer(numbers: IntArray) -> _Answers:
        rows, known = sampler.rows(numbers), features
        support, query = (part.reshape(len(numbers), -1) for part in (rows.support, rows.query))
        if known is None:
            needed, places = np.unique(np.concatenate([support, query], 1), return_inverse=True)
            known = features_at(learner, sampler.split, needed)
            support, query = np.split(places.reshape(len(numbers), -1), [support.shape[1]], 1)
        labels, asked = (torch.from_numpy(part).to(known.device) for part in rows.labels())
        head = adaptation.head(_gathered(known, support), labels, sampler.shape.ways)
        return _Answers(head.scores(_gathered(known, query)), asked, torch.from_numpy(rows.classes[:, 0]))

    return answer


def _gathered(features: Tensor, rows: IntArray) -> Tensor:
    """Features (B, M, D) at the rows (B, M)."""
    flat = torch.from_numpy(rows.reshape(-1)).to(features.device)
    return features.index_select(0, flat).view(len(rows), -1, features.shape[1])


def _from_images(
    learner: Learner, sampler: Sampler, split: AnySplit, adaptation: Adaptation | None
) -> Callable[[IntArray], _Answers]:
    """Answers from images or vectors, for what changes the network in a task."""

    def answer(numbers: IntArray) -> _Answers:
        episodes = prepare_images(sampler.episodes(numbers, device_of(learner)), split.normalization)
        if isinstance(learner, FeatureLearner) and adaptation is not None:
            scores = adaptation.scores(learner, episodes)
        else:
            scores = learner.scores(episodes)
        return _Answers(scores.detach(), episodes.query_labels, episodes.classes[:, 0])

    return answer
