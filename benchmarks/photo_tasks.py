"""Sets of photographs whose features `photo_features.py` kept, tasks drawn from them, and the classifier on a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from kshot.intervals import mean_interval
from kshot.photos.evidence import Evidence
from kshot.photos.examples import Examples, series_of
from kshot.photos.heads import balanced_head
from kshot.photos.inputs import C
from kshot.photos.network import POWER, SAME_SERIES
from kshot.solvers import LogisticRegression

HEAD = LogisticRegression(c=C)
CIFAR = "CIFAR-FS test classes"
VIEWS = "plain", "mirror", "wide", "tight"


@dataclass(frozen=True)
class Photos:
    """Photographs of C classes: features as the network gives them (`raw`), as kshot uses them, and of four views."""

    raw: Tensor
    plain: Tensor
    augmented: Tensor | None
    pixels: Tensor
    rows: list[NDArray[np.int64]]  # of each class


def photos(cache: Path, name: str, views: Sequence[str] = ("plain",)) -> Photos:
    """What photo_features.py kept of a set."""
    content = np.load(cache / f"{name}.npz")
    raw = {view: torch.from_numpy(content[f"view_{view}"]) for view in views}
    damped = [normalize(features.clamp(min=0).pow(POWER), dim=1) for features in raw.values()]
    labels = content["labels"]
    pixels = normalize(torch.from_numpy(content["pixels"]).float() - 127, dim=1)
    augmented = normalize(torch.stack(damped).mean(0), dim=1) if len(views) > 1 else None
    return Photos(
        raw["plain"], damped[0], augmented, pixels, [np.flatnonzero(labels == way) for way in range(labels.max() + 1)]
    )


@dataclass(frozen=True)
class Task:
    """Rows of examples, (S,), and of new photographs, (M,), in two sets of photographs, and their classes."""

    examples: NDArray[np.int64]
    labels: NDArray[np.int64]
    new: NDArray[np.int64]
    truth: NDArray[np.int64]


def drawn(
    old: Photos,
    new: Photos,
    generator: np.random.Generator,
    sizes: Sequence[int],
    *,
    unknown: int = 0,
    queries: int = 15,
) -> Task:
    """A task of classes with so many examples; `unknown` further classes have none, and the truth N, N + 1, ..."""
    count = len(sizes) + unknown
    examples, asked = [], []
    for way, size in zip(generator.choice(len(old.rows), count, replace=False), [*sizes, *unknown * [0]]):
        shuffled = generator.permutation(old.rows[way])
        examples.append(shuffled[:size])
        rest = shuffled[size:] if old is new else generator.permutation(new.rows[way])
        asked.append(rest[:queries])
    return Task(
        np.concatenate(examples),
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate(asked),
        np.repeat(np.arange(count), list(map(len, asked))),
    )


def evidence(old: Photos, task: Task, *, cosine: float | None = SAME_SERIES, seed: int = 0) -> Evidence:
    """What the examples of a task tell, as the classifier sees them."""
    plain, labels = old.plain[task.examples], torch.from_numpy(task.labels)
    features = plain if old.augmented is None else old.augmented[task.examples]
    examples = Examples(features, plain, labels, series_of(plain, labels, cosine=cosine), list(map(str, task.examples)))
    return Evidence(HEAD, examples, list(range(int(labels.max()) + 1)), seed=seed)


def scores(old: Photos, new: Photos, task: Task) -> NDArray[np.float64]:
    """Of the classifier, (M, N)."""
    features = old.plain if old.augmented is None else old.augmented
    return head_scores(features[task.examples], task.labels, new.plain[task.new])


def head_scores(features: Tensor, labels: NDArray[np.int64], new: Tensor) -> NDArray[np.float64]:
    """Of the classifier's head on any features."""
    head = balanced_head(HEAD, features[None], torch.from_numpy(labels)[None], int(labels.max()) + 1)
    return head.scores(new[None])[0].double().numpy()


def accuracy_of(answers: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean over classes, in percent."""
    return 100 * float(np.mean([np.mean(answers[truth == way] == way) for way in np.unique(truth)]))


def shown(values: Sequence[float], digits: int = 1) -> str:
    """Mean and interval."""
    mean, half = mean_interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def groceries(cache: Path) -> tuple[Photos, Photos]:
    return photos(cache, "groceries_train", VIEWS), photos(cache, "groceries_test")


def cifar(cache: Path) -> tuple[Photos, Photos]:
    test = photos(cache, "cifar_test")
    return test, test


def compared(cache: Path) -> dict[str, tuple[Photos, Photos]]:
    """The examples and the new photographs that answers are compared on."""
    own = photos(cache, "cifar_test_views", VIEWS)
    return {"groceries": groceries(cache), CIFAR: (own, own)}


def without_even(part: Photos) -> Photos:
    """The classes that no setting was chosen on."""
    return replace(part, rows=part.rows[1::2])
