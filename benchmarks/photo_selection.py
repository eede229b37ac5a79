"""What could make a classifier of one photograph per class better, on data that the tables of the guide do not show.

    python benchmarks/photo_features.py CACHE --groceries DIR --cifar-fs ROOT --groups DIR
    python benchmarks/photo_selection.py CACHE --tasks 200

CIFAR-FS validation classes, butterflies, dogs and playing cards, all of 32 pixels, and every fourth grocery, asked for
on other days. Each line is an accuracy and its difference from the same features of unit length in logistic regression
with C = 10, paired over tasks of 5 classes, with 1 and 5 examples per class; intervals are 95 %. "Whitened" divides
features by the square root of the covariance within classes of OTHER sets, or of other groceries, plus 3 times its mean
eigenvalue.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from photo_tasks import VIEWS, Photos, Task, drawn, shown
from torch import Tensor
from torch.nn.functional import normalize

from kshot.solvers import logistic_regression

SMALL = "cifar_val_views", "butterflies_views", "dogs_views", "cards_views"
_SHRINKAGE = 3.0
_AT_ONCE = 50

Views = Mapping[str, Tensor]  # (M, D) features of unit length by view


def loaded(cache: Path, name: str) -> tuple[Views, list[NDArray[np.int64]]]:
    """The features of a set by view, and the rows of each class."""
    content = np.load(cache / f"{name}.npz")
    views = {key.removeprefix("view_"): torch.from_numpy(content[key]) for key in content.files if "view_" in key}
    return views, [np.flatnonzero(content["labels"] == way) for way in range(content["labels"].max() + 1)]


def mean_of(views: Views, names: tuple[str, ...], power: float) -> Tensor:
    """The mean of some views, damped and of unit length."""
    damped = [normalize(views[name].clamp(min=0).pow(power), dim=1) for name in names]
    return normalize(torch.stack(damped).mean(0), dim=1)


def within(parts: list[tuple[Views, list[NDArray[np.int64]]]]) -> Tensor:
    """The mean of the covariances within classes of several sets, (D, D)."""
    covariances = []
    for views, rows in parts:
        features = mean_of(views, ("plain",), 0.7)
        centred = torch.cat([features[of_class] - features[of_class].mean(0) for of_class in rows])
        covariances.append(centred.mT @ centred / len(centred))
    return torch.stack(covariances).mean(0)


def whitening(covariance: Tensor) -> Tensor:
    """(D, D), which shrinks directions in which the photographs of a class differ."""
    values, vectors = torch.linalg.eigh(covariance.double())
    scale = (values.clamp(min=0) + _SHRINKAGE * values.mean()).rsqrt()
    return (vectors * scale @ vectors.mT).float()


def variants(old: Views, new: Views, whitenings: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, float]]:
    """Name, features of examples and of new photographs, and C; the first is what the others are compared with."""
    plain = ("plain",)
    yield "ten lines", old["plain"], new["plain"], 10.0
    ours, asked = mean_of(old, VIEWS, 0.7), mean_of(new, plain, 0.7)
    yield "kshot: power 0.7, four views", ours, asked, 10.0
    yield "the same, C = 3", ours, asked, 3.0
    yield "the same, C = 30", ours, asked, 30.0
    yield "power 0.5, four views", mean_of(old, VIEWS, 0.5), mean_of(new, plain, 0.5), 10.0
    yield "power 1, four views", mean_of(old, VIEWS, 1.0), mean_of(new, plain, 1.0), 10.0
    yield "power 0.7, one view", mean_of(old, plain, 0.7), asked, 10.0
    yield "power 0.7, mirrored", mean_of(old, ("plain", "mirror"), 0.7), asked, 10.0
    yield "new photographs mirrored, too", ours, mean_of(new, ("plain", "mirror"), 0.7), 10.0
    yield "new photographs in three views", ours, mean_of(new, ("plain", "mirror", "wide"), 0.7), 10.0
    yield "288 pixels, one view", mean_of(old, ("large",), 0.7), mean_of(new, ("large",), 0.7), 10.0
    both = ("plain", "large")
    yield "224 and 288 pixels", mean_of(old, (*VIEWS, "large"), 0.7), mean_of(new, both, 0.7), 10.0
    for name, matrix in whitenings.items():
        yield f"whitened by {name}", normalize(ours @ matrix, dim=1), normalize(asked @ matrix, dim=1), 10.0


def accuracies(examples: Tensor, asked: Tensor, tasks: list[Task], c: float) -> NDArray[np.float64]:
    """Of each task, in percent; tasks have equally many examples."""
    right = []
    for start in range(0, len(tasks), _AT_ONCE):
        some = tasks[start : start + _AT_ONCE]
        support = torch.stack([examples[task.examples] for task in some])
        labels = torch.from_numpy(np.stack([task.labels for task in some]))
        for task, head in zip(some, _heads(support, labels, c)):
            answers = (asked[task.new] @ head[0].mT + head[1]).argmax(1).numpy()
            right.append(100 * np.mean(answers == task.truth))
    return np.asarray(right)


def _heads(support: Tensor, labels: Tensor, c: float) -> list[tuple[Tensor, Tensor]]:
    head = logistic_regression(support, labels, 5, c=c)
    return list(zip(head.weight, head.bias))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="what photo_features.py wrote")
    parser.add_argument("--tasks", type=int, default=200)
    options = parser.parse_args()
    small = {name: loaded(options.cache, name) for name in SMALL}
    train, test = (loaded(options.cache, f"groceries_{part}") for part in ("train", "test"))
    # of every fourth grocery, on both days at once: days differ within a class
    views = {"plain": torch.cat([train[0]["plain"], test[0]["plain"]])}
    count = len(train[0]["plain"])
    rows = [np.concatenate([old, count + new]) for old, new in zip(train[1], test[1])]
    of_groceries = whitening(within([(views, rows[::4])]))
    evens = (train[0], train[1][2::4]), (test[0], test[1][2::4])
    for name, (old, new) in {**{name: (each, each) for name, each in small.items()}, "groceries": evens}.items():
        others = [part for other, part in small.items() if other != name]
        whitenings = {"other sets of 32 pixels": whitening(within(others)), "other groceries": of_groceries}
        for shots in (1, 5):
            generator, first = np.random.default_rng(7), _photos(*old)
            second = first if new is old else _photos(*new)
            tasks = [drawn(first, second, generator, [shots] * 5) for _ in range(options.tasks)]
            reference = None
            for label, examples, asked, c in variants(old[0], new[0], whitenings):
                accuracy = accuracies(examples, asked, tasks, c)
                reference = accuracy if reference is None else reference
                print(
                    f"{name}, {shots} shots, {label}: {shown(accuracy)}, {shown(accuracy - reference, 2)}", flush=True
                )


def _photos(views: Views, rows: list[NDArray[np.int64]]) -> Photos:
    """What tasks are drawn from."""
    plain = views["plain"]
    return Photos(plain, plain, None, plain, rows)


if __name__ == "__main__":
    main()
