"""The head of a task, and the checks that every solver makes on its support set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.solvers.products import product


class Head(Protocol):
    """What was learnt about a batch of tasks: a function of features."""

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D); the predicted class is the largest.

        Raises
        ------
        DivergenceError
            Outside training, if a score is not a finite number; see `checked_scores`.
        """
        ...


@dataclass(frozen=True)
class LinearHead:
    """One linear classifier per task: weight (B, N, D), bias (B, N)."""

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D); the predicted class is the largest."""
        return checked_scores(product(features, self.weight.mT, plus=self.bias.unsqueeze(1)), features)


def check_support(features: Tensor, labels: Tensor, ways: int) -> None:
    """Refuse a support set that no solver can learn from.

    Costs a few tensor operations and one wait for the device.

    Parameters
    ----------
    features
        (B, S, D), floating point.
    labels
        (B, S) int64 in 0..ways-1, every class at least once in every task, in any number.
    ways
        N, the number of classes.

    Raises
    ------
    ConfigError
        `ways` is below 2.
    DataError
        Shapes or types disagree, a label lies outside the range, or a class has no support image.
    DivergenceError
        A feature is not a finite number.
    """
    check_form(features, labels, ways)
    check_contents(features, labels, ways)


def check_form(features: Tensor, labels: Tensor, ways: int) -> None:
    """The part of `check_support` that looks at shapes and types alone."""
    if ways < 2:
        raise ConfigError(f"ways is {ways}, but a task needs at least 2 classes")
    if features.dim() != 3 or labels.shape != features.shape[:2] or 0 in features.shape[1:]:
        raise DataError(
            f"a solver takes features (tasks, support images, dimension) and labels (tasks, support images), "
            f"but got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if not features.is_floating_point() or labels.dtype != torch.int64:
        raise DataError(f"features must be floating point and labels int64, but are {features.dtype}, {labels.dtype}")


def check_contents(values: Tensor, labels: Tensor, ways: int) -> None:
    """The part of `check_support` that looks at values, after `check_form`.

    The values (B, N or S, D) are the features, or class means, which are finite only if the features are: that saves
    reading the features again.
    """
    known, present = _known_and_present(labels, ways)
    # A sum is finite only if every term is, and it reads the features once without a copy.
    usable = values.detach().sum((1, 2)).isfinite()
    if not torch.stack([known.all(), present.all(), usable.all()]).all():
        _explain_labels(known, present, labels, ways)
        raise DivergenceError(
            "the support features are not all finite numbers (or overflow when summed); look for NaN or infinity in "
            "the images or in the weights of the backbone",
            task=_first(~usable),
        )


def check_labels(labels: Tensor, ways: int) -> None:
    """The half of `check_support` that needs no features: refuse support labels that no classifier can learn from.

    Costs one wait for the device.

    Parameters
    ----------
    labels
        (B, S) int64 in 0..ways-1, every class at least once in every task.
    ways
        N, the number of classes.

    Raises
    ------
    DataError
        A label lies outside the range, or a class has no support image.
    """
    known, present = _known_and_present(labels, ways)
    if not (known.all() & present.all()):
        _explain_labels(known, present, labels, ways)


def checked_scores(scores: Tensor, features: Tensor) -> Tensor:
    """The scores that a head gives to query images, once they are known to be finite numbers.

    Features that are not finite give scores that are not, and so do finite ones that are too large. While gradients are
    recorded nothing is checked: training looks at the loss. Costs a few operations on the scores, and one wait for the
    device.

    Parameters
    ----------
    scores
        (B, T, N), or other values (B, ...) that depend on all features of a task.
    features
        Query features (B, T, D), which they belong to.

    Raises
    ------
    DivergenceError
        A score is not a finite number; the error says whether its feature is.
    """
    if scores.requires_grad or scores.sum().isfinite():
        return scores
    finite = scores.isfinite().flatten(1).all(1)  # sums overflow earlier
    if finite.all():
        return scores
    task = _first(~finite)
    if features[task].isfinite().all():
        message = "the scores of query images are not all finite numbers; scale the features, as to unit length"
    else:
        message = "the query features are not all finite numbers; look for NaN or infinity in the images or the weights"
    raise DivergenceError(message, task=task)


def _first(tasks: Tensor) -> int:
    """The first of the tasks (B,) that are True."""
    return int(tasks.nonzero()[0])


def _known_and_present(labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
    """Whether each label (B, S) is one of the `ways`, and whether each class (B, N) has an image."""
    members = one_hot(labels, ways, torch.bool)
    return members.any(2), members.any(1)


def _explain_labels(known: Tensor, present: Tensor, labels: Tensor, ways: int) -> None:
    """DataError for the first label out of range or the first class without an image, if there is one."""
    if not known.all():
        task, image = known.logical_not().nonzero()[0].tolist()
        raise DataError(
            f"task {task} has the support label {int(labels[task, image])}, outside 0..{ways - 1} for {ways} ways; "
            "number the classes of each task from 0"
        )
    if not present.all():
        task, way = present.logical_not().nonzero()[0].tolist()
        raise DataError(
            f"class {way} of task {task} has no support image; give every class at least one, or choose fewer ways"
        )


def one_hot(labels: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
    """(B, S, N) indicators of labels (B, S); a label outside 0..N-1 gives a row of zeros."""
    return (labels.unsqueeze(-1) == torch.arange(ways, device=labels.device)).to(dtype)


def class_rows(labels: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
    """(B, N, S) indicators of labels (B, S), a row per class.

    Reductions over a dimension of few classes that is not the last one are many times faster on a CPU.
    """
    return (labels.unsqueeze(1) == torch.arange(ways, device=labels.device).unsqueeze(1)).to(dtype)


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """(B, N, D) mean feature of each class; differentiable."""
    members = class_rows(labels, ways, features.dtype)
    return product(members / members.sum(2, keepdim=True), features)
