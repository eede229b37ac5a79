"""The protocol: the same tasks for every learner, its features or its images, its way to learn a task."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray, Sampler, TaskShape
from kshot.data.tasks import AnyDataset, AnySplit, split_of, task_sampler
from kshot.errors import ConfigError
from kshot.evaluation.answering import answering_of
from kshot.evaluation.features import check_mode, extract_features
from kshot.evaluation.fit import check_images
from kshot.evaluation.results import Evaluation, Protocol
from kshot.evaluation.task_loop import for_tasks
from kshot.evaluation.training_mean import told_the_mean
from kshot.learners.base import FeatureLearner, Learner, learners, task_losses
from kshot.learners.initialization import InitializationLearner
from kshot.learners.training_split import check_observed
from kshot.measures import QueryBalance, Statistics
from kshot.solvers.adaptation import Adaptation, HeadAdaptation, adaptations

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
        This many tasks of EACH domain, its first ones, in the place of `tasks` in all; at least 2. For tasks whose
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
    shape, sampler, chosen = plan_evaluation(
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
    chosen = told_the_mean(chosen, learner, training, precision=precision)
    numbers = _numbers(sampler, tasks, tasks_per_domain)
    if features is None:
        features = shared_features(learner, split, adaptation=chosen, precision=precision, progress=progress)
    else:
        _check_features(features, split)
    answering = answering_of(learner, sampler, shape, split, chosen, features)
    values, classes = zip(
        *for_tasks(
            learner,
            lambda episodes: (_values(answering.scores(episodes), episodes.query_labels), _first_classes(episodes)),
            sampler=answering.sampler,
            numbers=numbers,
            normalization=answering.normalization,
            at_once=answering.at_once,
            precision=precision,
            statistics=statistics,
            progress=f"{shots}-shot tasks" if progress else None,
        )
    )
    used, drawn = statistics or learner.statistics_offered[0], departure(split, within_domain)
    return Evaluation(
        learner=learners.name_of(learner),
        adaptation=describe_adaptation(chosen),
        protocol=Protocol(
            dataset=split.dataset,
            split=split.name,
            ways=shape.ways,
            shots=shots,
            queries=queries,
            tasks=len(numbers),
            seed=seed,
            statistics=used,
            within_domain=drawn,
            query_balance=query_balance,
            tasks_per_domain=tasks_per_domain,
        ),
        values=np.concatenate(values),
        seconds=time.perf_counter() - started,
        own_adaptation=describe_adaptation(chosen) == describe_adaptation(getattr(learner, "adaptation", None)),
        precision=precision,
        domains=_domains(sampler, np.concatenate(classes)),
        measure=split.measure,
        data=split.checksum,
        transductive=chosen is not None and chosen.transductive,
    )


def plan_evaluation(
    learner: Learner,
    split: AnySplit | AnyDataset,
    *,
    ways: int | None,
    shots: int,
    queries: int,
    tasks: int,
    seed: int,
    within_domain: bool | None,
    query_balance: QueryBalance = "balanced",
    tasks_per_domain: int | None = None,
    adaptation: Adaptation | str | None = None,
    precision: str = "float32",
    statistics: Statistics | None = None,
) -> tuple[TaskShape, Sampler, Adaptation | None]:
    """The tasks of `evaluate` with these options, and how they are learnt.

    What cannot be measured is refused before any work, by the errors that `evaluate` raises.
    """
    if not isinstance(learner, Learner):
        raise ConfigError(f"{learner!r:.80} is not a learner; make one by kshot.create_learner(name, data)")
    if isinstance(queries, int) and queries < 1:
        raise ConfigError(f"queries is {queries}, but must be at least 1: there is nothing to measure without any")
    check_tasks(tasks if tasks_per_domain is None else tasks_per_domain)
    check_mode(learner, precision, statistics)
    split = split_of(split)
    ways = usual_ways(learner, split) if ways is None else ways
    learner.check_ways(ways)
    check_observed(learner)
    shape = TaskShape(ways, shots, queries)
    sampler = task_sampler(split, shape, seed=seed, within_domain=within_domain, query_balance=query_balance)
    _numbers(sampler, 0, tasks_per_domain)
    chosen = _adaptation_of(learner, adaptation)
    _check_together(learner, chosen, statistics)
    if adaptation is not None and not isinstance(split, Split):
        raise ConfigError("adaptations tell classes apart, and these tasks are regression; leave out the adaptation")
    planned = shape, sampler, chosen
    check_images(learner, split)
    return planned


def _numbers(sampler: Sampler, tasks: int, tasks_per_domain: int | None) -> IntArray:
    """The numbers of the tasks to measure: the first ones, or the first ones of each domain."""
    if tasks_per_domain is None:
        return np.arange(tasks)
    if not isinstance(sampler, EpisodeSampler):
        raise ConfigError("these tasks are regression and have no domains; leave out tasks_per_domain")
    return sampler.first_of_each_domain(tasks_per_domain)


def check_tasks(tasks: int) -> None:
    """ConfigError if the tasks are too few for an interval."""
    if tasks < 2:
        raise ConfigError(f"tasks is {tasks}, but must be at least 2: one task alone has no confidence interval")


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
    chosen, split = _adaptation_of(learner, adaptation), split_of(split)
    if not (isinstance(learner, FeatureLearner) and isinstance(split, Split) and isinstance(chosen, HeadAdaptation)):
        return None
    if 4 * len(split.images) * learner.backbone.feature_size > _FEATURE_BYTES:
        return None
    return extract_features(learner, split, precision=precision, progress=progress)


def usual_ways(learner: Learner, split: AnySplit) -> int:
    """The default for the classes per task: those that the learner is bound to, or else what the split says."""
    return split.usual_ways if learner.bound_ways is None else learner.bound_ways


def departure(split: AnySplit, within_domain: bool | None) -> bool | None:
    """`within_domain` for a `Protocol`: None if the tasks are those that the split itself asks for."""
    return None if within_domain == split.tasks_within_domain else within_domain


def describe_adaptation(adaptation: Adaptation | None) -> str:
    """The adaptation's description, or "own" for a learner that learns tasks in its own way."""
    return "own" if adaptation is None else adaptation.description


def _adaptation_of(learner: Learner, adaptation: Adaptation | str | None) -> Adaptation | None:
    """The adaptation that was asked for, or the learner's own; None if the learner adapts in its own way."""
    if adaptation is None:
        return learner.adaptation if isinstance(learner, FeatureLearner) else None
    chosen = adaptations[adaptation]() if isinstance(adaptation, str) else adaptation
    if isinstance(learner, FeatureLearner):
        return chosen
    if not isinstance(learner, InitializationLearner):
        raise ConfigError(f"{type(learner).__name__} adapts in its own way; leave out the adaptation")
    if not isinstance(chosen, HeadAdaptation):
        raise ConfigError(
            f"{type(learner).__name__} lends its body to adaptations that fit a head, and {chosen.description} moves "
            f"the body, too; choose another, such as logistic, or leave out the adaptation"
        )
    return chosen


def _check_together(learner: Learner, adaptation: Adaptation | None, statistics: Statistics | None) -> None:
    """ConfigError if query images would be looked at together, and normalised one by one."""
    used = statistics or learner.statistics_offered[0]
    if adaptation is not None and adaptation.transductive and used == "inductive":
        raise ConfigError(
            f"{adaptation.description} looks at all query images together, and inductive statistics at one at a time; "
            f"choose statistics='transductive', or another adaptation, such as logistic"
        )


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
