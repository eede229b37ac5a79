"""The protocol: the same tasks for every learner, its features or its images, its way to learn a task."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray, Sampler
from kshot.data.tasks import AnyDataset, AnySplit, split_of
from kshot.errors import ConfigError
from kshot.evaluation.answering import Answering, answering_of
from kshot.evaluation.features import extract_features
from kshot.evaluation.plan import adaptation_of, describe_adaptation, plan_evaluation
from kshot.evaluation.results import Evaluation
from kshot.evaluation.task_loop import for_tasks
from kshot.evaluation.training_mean import told_the_mean
from kshot.learners.base import FeatureLearner, Learner, learners, task_losses
from kshot.measures import QueryBalance, Statistics
from kshot.solvers.adaptation import Adaptation, HeadAdaptation

_FEATURE_BYTES = 1 << 32  # of a split; above it each task computes its own: R2-D2's at 84 px are 200 kB per image


def evaluate(
    learner: Learner,
    split: AnySplit | AnyDataset,
    *,
    ways: int | None = None,
    shots: int = 5,
    queries: int = 15,
    tasks: int = 2000,
    tasks_per_domain: int | None = None,
    seed: int = 0,
    within_domain: bool | None = None,
    query_balance: QueryBalance = "balanced",
    adaptation: Adaptation | str | None = None,
    features: Tensor | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    statistics: Statistics | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure a learner on sampled tasks: accuracy, or the mean squared error for tasks of regression.

    Task number i is the same for every learner and on every machine, so that two results are paired.

    Parameters
    ----------
    learner
        The learner; afterwards it is as before.
    split
        The classes that tasks are drawn from, such as ``data.test``; a dataset stands for its test split.
    ways
        Classes per task; None for those that the learner is bound to, or else 5. Tasks of regression have none.
    shots
        Support images per class, or support points.
    queries
        Query images per class, or query points.
    tasks
        Number of tasks, at least 2; the interval shrinks with its square root.
    tasks_per_domain
        This many tasks of EACH domain, its first ones, instead of `tasks` in all; at least 2. For tasks whose
        classes come from one domain, such as those of a mixture (Z21 measures 600 per dataset).
    seed
        Names the set of tasks.
    within_domain
        Draw all classes of a task from one domain (alphabet, superclass), or from all domains; None for what the split
        says.
    query_balance
        How the query images of a task are spread over its classes: "balanced", `queries` of each; "dirichlet", as many
        in all, in Dirichlet proportions of concentration 2 (Veilleux et al. 2021); "single", one image of one class.
    adaptation
        How a task is learnt from features, by name or instance; None for the learner's own way. Learners that adapt
        weights lend the body of their initialisation, under statistics of the task, and their own steps have no part
        in it (W21 eqs. 8-9 ask the same of ANIL's body): those that fit a head only.
    features
        What `extract_features` returned for the split, to be shared by several calls; None to compute it here.
    precision
        What the backbone computes in.
    statistics
        Where BatchNorm statistics come from, for learners that adapt weights: the whole query set ("transductive") or
        the support set plus one query image at a time ("inductive"); None for the learner's usual.
    progress
        Show bars on the terminal.

    Returns
    -------
    Evaluation
        One value per task, with mean, 95% interval and protocol.

    Raises
    ------
    DataError
        If the split is too small for the tasks.
    ConfigError
        If an option makes no sense, or the images, the adaptation or the features do not fit the learner.
    DivergenceError
        If a task diverges, which the error names.
    """
    started, training = time.perf_counter(), split.train if isinstance(split, Dataset) else None
    split = split_of(split)
    plan = plan_evaluation(
        learner,
        split,
        ways=ways,
        shots=shots,
        queries=queries,
        tasks=tasks,
        tasks_per_domain=tasks_per_domain,
        seed=seed,
        within_domain=within_domain,
        query_balance=query_balance,
        adaptation=adaptation,
        precision=precision,
        statistics=statistics,
    )
    chosen = told_the_mean(plan.adaptation, learner, training, precision=precision)
    if features is None:
        features = shared_features(learner, split, adaptation=chosen, precision=precision, progress=progress)
    else:
        _check_features(features, split)
    answering = answering_of(learner, plan.sampler, shape=plan.shape, split=split, adaptation=chosen, features=features)
    bar = f"{shots}-shot tasks" if progress else None
    values, classes = _measured(learner, answering, plan.numbers, precision=precision, statistics=statistics, bar=bar)
    return Evaluation(
        learner=learners.name_of(learner),
        adaptation=describe_adaptation(chosen),
        protocol=plan.protocol,
        values=values,
        seconds=time.perf_counter() - started,
        own_adaptation=describe_adaptation(chosen) == describe_adaptation(getattr(learner, "adaptation", None)),
        precision=precision,
        domains=_domains(plan.sampler, classes),
        measure=split.measure,
        data=split.checksum,
        transductive=chosen is not None and chosen.transductive,
    )


def _measured(
    learner: Learner,
    answering: Answering,
    numbers: IntArray,
    *,
    precision: Literal["float32", "bf16"],
    statistics: Statistics | None,
    bar: str | None,
) -> tuple[NDArray[np.float64], IntArray]:
    """The accuracy or error (M,) of each task, and its first class, which tells its domain."""
    pieces = for_tasks(
        learner,
        lambda episodes: (_values(answering.scores(episodes), episodes.query_labels), _first_classes(episodes)),
        sampler=answering.sampler,
        numbers=numbers,
        normalization=answering.normalization,
        at_once=answering.at_once,
        precision=precision,
        statistics=statistics,
        progress=bar,
    )
    values, classes = zip(*pieces)
    return np.concatenate(values), np.concatenate(classes)


def shared_features(
    learner: Learner,
    split: AnySplit | AnyDataset,
    *,
    adaptation: Adaptation | str | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    progress: bool = False,
) -> Tensor | None:
    """What `extract_features` returns, to be shared by several calls of `evaluate`; parameters as there.

    None if tasks change the network, so that there are no such features, and if they are too many to keep.
    """
    chosen, split = adaptation_of(learner, adaptation), split_of(split)
    if not (isinstance(learner, FeatureLearner) and isinstance(split, Split) and isinstance(chosen, HeadAdaptation)):
        return None
    if 4 * len(split.images) * learner.backbone.feature_size > _FEATURE_BYTES:
        return None
    return extract_features(learner, split, precision=precision, progress=progress)


def _check_features(features: Tensor, split: AnySplit) -> None:
    """ConfigError if the features are not as many as the images of the split."""
    images = len(split.images) if isinstance(split, Split) else 0
    if len(features) != images:
        raise ConfigError(
            f"{len(features)} features were given, but {split.dataset}/{split.name} has {images} images; "
            f"give what extract_features returns for this split"
        )


def _values(scores: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """The accuracy (B,) of each task, or its mean squared error, of scores (B, T, N)."""
    scores = scores.detach()
    if labels.is_floating_point():
        return task_losses(scores.double(), labels.double()).cpu().numpy()
    return (scores.argmax(-1) == labels).cpu().numpy().mean(1)


def _first_classes(episodes: Episodes) -> IntArray:
    """The first class (B,) of each task, which tells its domain."""
    return episodes.classes[:, 0].cpu().numpy()


def _domains(sampler: Sampler, classes: IntArray) -> list[str] | None:
    """The domain of each task whose first class is one of `classes`; None if tasks mix domains, or have none."""
    if not isinstance(sampler, EpisodeSampler) or not sampler.within_domain:
        return None
    return [sampler.split.domains[number] for number in classes]
