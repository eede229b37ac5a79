"""How a frozen feature learner learns a task: which head is fitted to the features of its support images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.registry import Registry
from kshot.solvers.heads import Head, LinearHead
from kshot.solvers.logistic import check_logistic, logistic_regression
from kshot.solvers.prototypes import cosine, nearest_centroid
from kshot.solvers.ridge import check_ridge, ridge
from kshot.solvers.svm import check_svm, svm


class HasFeatures(Protocol):
    """Anything that turns images (M, C, H, W) into features (M, D)."""

    def features(self, images: Tensor) -> Tensor:
        """Features (M, D) of images (M, C, H, W)."""
        ...


class Adaptation(ABC):
    """A way to learn a task from its support images."""

    @property
    def description(self) -> str:
        """Name and options, for results that differ in an option alone are different results: "logistic-c=3.0"."""
        options = getattr(self, "options", {})
        return "-".join([adaptations.name_of(self), *(f"{name}={value}" for name, value in options.items())])

    @abstractmethod
    def scores(self, learner: HasFeatures, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images."""


class HeadAdaptation(Adaptation):
    """Fits a head to features and leaves the network alone, so that features can be computed once an image."""

    @abstractmethod
    def head(self, features: Tensor, labels: Tensor, ways: int) -> Head:
        """The head for support features (B, S, D) with labels (B, S)."""

    def scores(self, learner: HasFeatures, episodes: Episodes) -> Tensor:
        """Scores (B, T, N): support and query images go through the network together, then the head is fitted."""
        images = episodes.images()
        features = learner.features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        boundary = episodes.support.shape[1]
        head = self.head(features[:, :boundary], episodes.support_labels, episodes.ways)
        return head.scores(features[:, boundary:])


adaptations: Registry[Adaptation] = Registry("adaptation")


@adaptations.register("logistic")
class LogisticRegression(HeadAdaptation):
    """Logistic regression, as scikit-learn's: 1/2 |W|^2 + C * SUM_i cross-entropy_i, bias not penalised.

    Parameters
    ----------
    c : weight C of the summed cross-entropy; W21 uses 3, T20 uses 1.
    """

    def __init__(self, c: float = 3.0) -> None:
        check_logistic(c)
        self.c = c

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The optimum of each task's regression, of features (B, S, D) and labels (B, S)."""
        return logistic_regression(features, labels, ways, c=self.c)


@adaptations.register("centroid")
class NearestCentroid(HeadAdaptation):
    """Negative squared distance to the class means (Snell et al. 2017)."""

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The class means of features (B, S, D) with labels (B, S), as a linear head."""
        return nearest_centroid(features, labels, ways)


@adaptations.register("ridge")
class Ridge(HeadAdaptation):
    """Ridge regression onto one-hot labels (Bertinetto et al. 2019).

    Parameters
    ----------
    l2 : weight of |W|^2 against the summed squared errors.
    """

    def __init__(self, l2: float = 1.0) -> None:
        check_ridge(l2)
        self.l2 = l2

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The solution of each task's regression, of features (B, S, D) and labels (B, S)."""
        return ridge(features, labels, ways, l2=self.l2)


@adaptations.register("svm")
class SupportVectorMachine(HeadAdaptation):
    """The multi-class support vector machine of MetaOptNet (Lee et al. 2019).

    Parameters
    ----------
    c : weight C of the hinge losses against 1/2 |W|^2.
    diagonal_shift : what is added to the diagonal of the kernel; MetaOptNet's release adds 1, its paper nothing.
    """

    def __init__(self, c: float = 0.1, diagonal_shift: float = 1.0) -> None:
        check_svm(c, diagonal_shift)
        self.c, self.diagonal_shift = c, diagonal_shift

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The optimum of each task, of features (B, S, D) and labels (B, S)."""
        return svm(features, labels, ways, c=self.c, diagonal_shift=self.diagonal_shift)


@adaptations.register("cosine")
class Cosine(HeadAdaptation):
    """Cosine similarity to the mean of the unit-length support features of a class."""

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The unit-length class means of features (B, S, D) with labels (B, S), as a linear head."""
        return cosine(features, labels, ways)
