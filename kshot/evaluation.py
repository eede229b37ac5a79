"""The protocol: the same tasks for every learner, accuracy with its interval, paired differences between learners."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from kshot.data.augmentation import normalize, prepare_images
from kshot.data.dataset import Split
from kshot.data.episodes import EpisodeRows, EpisodeSampler, TaskShape
from kshot.errors import ConfigError, DataError
from kshot.files import write_json
from kshot.learners.base import FeatureLearner, Learner, learners
from kshot.memory import keep_freed_memory
from kshot.solvers.adaptation import Adaptation, HeadAdaptation, adaptations

_CHUNK_BYTES = 1 << 27  # features or images that one chunk of tasks may gather: keeps memory flat, stays in fast caches
_PIXELS_AT_ONCE = 250 * 32 * 32  # of images that go through the backbone together; its maps grow with them
_IMAGES_AT_ONCE = 250
_PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class Protocol:
    """What a number was measured on; two results with equal protocols were measured on the same tasks, in pairs.

    within_groups: whether the classes of a task came from one group, where that was not as the split itself says; None
        where it was.
    """

    dataset: str
    split: str
    ways: int
    shots: int
    queries: int
    tasks: int
    seed: int
    statistics: Literal["running", "transductive", "inductive"]
    within_groups: bool | None = None

    @property
    def drawn(self) -> str:
        """How the classes of a task were drawn, in words, where that was not as the split itself says."""
        return {None: "", True: ", each within one group", False: ", across groups"}[self.within_groups]

    def __str__(self) -> str:
        return (
            f"{self.ways}-way {self.shots}-shot, {self.queries} queries a class, {self.tasks} tasks of "
            f"{self.dataset}/{self.split}{self.drawn}, {self.statistics} statistics, seed {self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracies (tasks,) float64 in 0..1, one a task in the order of task numbers, and how they came about.

    adaptation: how tasks were learnt, name and options; own_adaptation says whether that is the learner's own way.
    precision: what the backbone computed in.
    weights: what identifies the checkpoint that was measured; None for a learner that came from none.
    """

    learner: str
    adaptation: str
    protocol: Protocol
    accuracies: NDArray[np.float64]
    seconds: float
    own_adaptation: bool = True
    precision: Literal["float32", "bf16"] = "float32"
    weights: str | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over tasks, 0..1."""
        return float(self.accuracies.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95% confidence interval of the mean over tasks."""
        return interval(self.accuracies)

    def __str__(self) -> str:
        return f"{self.learner}: {100 * self.mean:.2f} ± {100 * self.ci95:.2f} % ({self.protocol})"

    def save(self, folder: Path) -> Path:
        """Write everything, the accuracy of each task included, to a JSON file in `folder`; returns its path.

        ConfigError where it cannot be written; an earlier file is then untouched.
        """
        at = self.protocol
        name = f"{at.split}-{at.ways}way-{at.shots}shot-{at.queries}query-{at.tasks}tasks-seed{at.seed}"
        drawn = {None: "", True: "-within", False: "-across"}[at.within_groups]
        path = folder / f"{name}{drawn}-{self.adaptation}-{at.statistics}-{self.precision}.json"
        content = asdict(self) | {"mean": self.mean, "ci95": self.ci95, "accuracies": self.accuracies.tolist()}
        try:
            write_json(path, content)
        except OSError as error:
            raise ConfigError(
                f"the evaluation {path} cannot be written ({error}); free some space, or choose a folder that can be"
            ) from error
        return path

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote; DataError where the file is not such a result."""
        try:
            content = json.loads(Path(path).read_text())
            known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
            accuracies = np.asarray(content["accuracies"], np.float64)
            return cls(**known | {"protocol": Protocol(**content["protocol"]), "accuracies": accuracies})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not an evaluation that kshot wrote ({error}); evaluate the run again"
            ) from error


@dataclass(frozen=True)
class Difference:
    """Mean over tasks of accuracy(first) - accuracy(second) on the same tasks, and its 95% half-width."""

    mean: float
    ci95: float

    def __str__(self) -> str:
        return f"{100 * self.mean:+.2f} ± {100 * self.ci95:.2f} points, paired over the same tasks"


def interval(values: NDArray[np.float64]) -> float:
    """Half-width of the 95% confidence interval of a mean, by Student's t; nan for fewer than two values."""
    count = len(values)
    if count < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))


def compare(first: Evaluation, second: Evaluation) -> Difference:
    """The paired difference of two results; ConfigError where they were not measured on the same tasks."""
    own, other = (asdict(result.protocol) | {"statistics": ""} for result in (first, second))
    differing = [name for name in own if own[name] != other[name]]
    if differing:
        raise ConfigError(
            f"{first.learner} and {second.learner} were measured on different tasks (they differ in "
            f"{', '.join(differing)}); evaluate both with the same options"
        )
    difference = first.accuracies - second.accuracies
    return Difference(float(difference.mean()), interval(difference))


def over_seeds(results: Sequence[Evaluation]) -> tuple[float, float]:
    """Mean and 95% half-width over several trainings of one learner: each training's mean is one observation."""
    means = np.asarray([result.mean for result in results])
    return float(means.mean()), interval(means)


@contextmanager
def evaluating(learner: Learner, precision: Literal["float32", "bf16"]) -> Iterator[None]:
    """The learner in evaluation mode and this precision, and afterwards as it was; ConfigError for an unknown one."""
    if precision not in _PRECISIONS:
        raise ConfigError(f"there is no precision {precision!r}; choose one of: {', '.join(_PRECISIONS)}")
    was_training, had_precision = learner.training, learner.precision
    learner.eval()
    learner.precision = precision
    try:
        yield
    finally:
        learner.train(was_training)
        learner.precision = had_precision


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
    device, count = device_of(learner), len(split.images)
    _, height, width = split.image_shape
    if device.type == "cpu":
        keep_freed_memory()
    at_once = max(1, min(_IMAGES_AT_ONCE, _PIXELS_AT_ONCE // (height * width)))
    pieces = []
    with evaluating(learner, precision), tqdm(total=count, unit="img", desc="features", disable=not progress) as bar:
        for start in range(0, count, at_once):
            rows = np.arange(start, min(start + at_once, count))
            pieces.append(learner.features(normalize(split.gather(rows, device), split.normalization)))
            bar.update(len(rows))
    return torch.cat(pieces)


def evaluate(
    learner: Learner,
    split: Split,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    tasks: int = 2000,
    seed: int = 0,
    within_groups: bool | None = None,
    adaptation: Adaptation | str | None = None,
    features: Tensor | None = None,
    precision: Literal["float32", "bf16"] = "float32",
    progress: bool = False,
) -> Evaluation:
    """Accuracy of a learner on `tasks` tasks of a split: task i is the same for every learner and on every machine.

    ways: classes a task.
    shots: support images a class.
    queries: query images a class.
    tasks: number of tasks; the interval shrinks with its square root.
    seed: names the set of tasks.
    within_groups: draw all classes of a task from one group (alphabet, superclass, domain), or from all of them; None
        as the split says.
    adaptation: how a frozen feature learner learns a task, by name or instance; None for the learner's own.
    features: what `extract_features` returned, to be shared by several calls; None to compute it here.
    precision: what the backbone computes in.
    progress: show bars on the terminal.

    Raises DataError where the split is too small for the shape, ConfigError for an adaptation or features that do not
    fit, and for options without sense.
    """
    started = time.perf_counter()
    for name, number in (("queries", queries), ("tasks", tasks)):
        if number < 1:
            raise ConfigError(f"{name} is {number}, but must be at least 1: there is no accuracy without any")
    if features is not None and len(features) != len(split.images):
        raise ConfigError(
            f"{len(features)} features were given, but {split.dataset}/{split.name} has {len(split.images)} images; "
            f"give what extract_features returns for this split"
        )
    sampler = EpisodeSampler(split, TaskShape(ways, shots, queries), seed, within_groups=within_groups)
    chosen = _adaptation_of(learner, adaptation)
    if isinstance(learner, FeatureLearner) and isinstance(chosen, HeadAdaptation):
        if features is None:
            features = extract_features(learner, split, precision, progress)
        score, task_bytes = _from_features(features, chosen, ways), features[0].nbytes * ways * (shots + queries)
    else:
        score = _from_images(learner, split, chosen)
        task_bytes = split.images[0].nbytes * 4 * ways * (shots + queries)
    chunk = max(1, min(tasks, _CHUNK_BYTES // task_bytes))
    accuracies = np.empty(tasks)
    with evaluating(learner, precision), tqdm(total=tasks, unit="task", desc="tasks", disable=not progress) as bar:
        for start in range(0, tasks, chunk):
            rows = sampler.rows(np.arange(start, min(start + chunk, tasks)))
            predicted = score(rows).argmax(-1).cpu().numpy()
            accuracies[start : start + chunk] = (predicted == rows.labels()[1]).mean(1)
            bar.update(len(rows.classes))
    return Evaluation(
        learner=learners.name_of(learner),
        adaptation=describe_adaptation(chosen),
        protocol=Protocol(
            split.dataset, split.name, ways, shots, queries, tasks, seed, "running", departure(split, within_groups)
        ),
        accuracies=accuracies,
        seconds=time.perf_counter() - started,
        own_adaptation=describe_adaptation(chosen) == describe_adaptation(getattr(learner, "adaptation", None)),
        precision=precision,
    )


def departure(split: Split, within_groups: bool | None) -> bool | None:
    """`within_groups` for a `Protocol`: None where the tasks are those that the split itself asks for."""
    return None if within_groups == split.tasks_within_groups else within_groups


def describe_adaptation(adaptation: Adaptation | None) -> str:
    """Name and options, for results that differ in an option alone are different results: "logistic-c=3.0"."""
    if adaptation is None:
        return "own"
    options = getattr(adaptation, "options", {})
    return "-".join([adaptations.name_of(adaptation), *(f"{name}={value}" for name, value in options.items())])


def _adaptation_of(learner: Learner, adaptation: Adaptation | str | None) -> Adaptation | None:
    if not isinstance(learner, FeatureLearner):
        if adaptation is not None:
            raise ConfigError(f"{type(learner).__name__} adapts in its own way; leave out the adaptation")
        return None
    if adaptation is None:
        return learner.adaptation
    return adaptations[adaptation]() if isinstance(adaptation, str) else adaptation


def _from_features(features: Tensor, adaptation: HeadAdaptation, ways: int) -> Callable[[EpisodeRows], Tensor]:
    """Scores from the features of the whole split: a head a task, nothing of the network."""

    @torch.no_grad()
    def score(rows: EpisodeRows) -> Tensor:
        support, query = (_gathered(features, part) for part in (rows.support, rows.query))
        labels = torch.from_numpy(rows.labels()[0]).to(features.device)
        return adaptation.head(support, labels, ways).scores(query)

    return score


def _gathered(features: Tensor, rows: NDArray[np.int64]) -> Tensor:
    flat = torch.from_numpy(rows.reshape(-1)).to(features.device)
    return features.index_select(0, flat).view(len(rows), -1, features.shape[1])


def _from_images(learner: Learner, split: Split, adaptation: Adaptation | None) -> Callable[[EpisodeRows], Tensor]:
    """Scores from images, for what changes the network in a task."""

    def score(rows: EpisodeRows) -> Tensor:
        episodes = prepare_images(rows.gather(split, device_of(learner)), split.normalization)
        if isinstance(learner, FeatureLearner) and adaptation is not None:
            return adaptation.scores(learner, episodes).detach()
        return learner.scores(episodes).detach()

    return score
