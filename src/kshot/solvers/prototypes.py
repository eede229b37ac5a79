"""Heads that are class means, differentiable: nearest centroid (Snell et al. 2017, eq. 2) and cosine similarity."""

from __future__ import annotations

from torch import Tensor

from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import LinearHead, check_contents, check_form, check_support, class_means
from kshot.solvers.transformed import unit_class_means, unit_length


@adaptations.register("centroid")
class NearestCentroid(HeadAdaptation):
    """Negative squared distance to the class means (Snell et al. 2017, eqs. 1-2)."""

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The class means of features (B, S, D) with labels (B, S), as a linear head."""
        return nearest_centroid(features, labels, ways)


@adaptations.register("cosine")
class Cosine(HeadAdaptation):
    """Cosine similarity to the mean of the unit-length support features of each class."""

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The unit-length class means of features (B, S, D) with labels (B, S), as a linear head."""
        return cosine(features, labels, ways)


def nearest_centroid(features: Tensor, labels: Tensor, ways: int) -> LinearHead:
    """Negative SQUARED Euclidean distance to the class means p, up to a constant per query (Snell et al. 2017, eq. 2).

    -|q - p|^2 = 2 p.q - |p|^2 - |q|^2, and the last term is the same for every class: it changes neither the softmax
    nor the largest score. Hence weight 2p and bias -|p|^2.

    Parameters
    ----------
    features
        Support features (B, S, D), floating point. Gradients flow back to them.
    labels
        Their classes, (B, S) int64 in 0..ways-1; classes may have different numbers of images.
    ways
        N, the number of classes.

    Raises
    ------
    ConfigError, DataError, DivergenceError
        As `check_support`.
    """
    check_form(features, labels, ways)
    means = class_means(features, labels, ways)
    check_contents(means, labels, ways)
    return nearest(means)


def nearest(prototypes: Tensor) -> LinearHead:
    """Negative squared distance to prototypes (B, N, D), up to a constant per query, as `nearest_centroid` has it."""
    return LinearHead(2 * prototypes, -prototypes.square().sum(-1))


def cosine(features: Tensor, labels: Tensor, ways: int) -> LinearHead:
    """Unit-length class means of unit-length features: the scores of a unit-length query are its cosines.

    A query of another length scales all scores by the same factor, so the predicted class is the same. A feature or
    mean of zeros stays zero and scores 0.

    Parameters
    ----------
    features, labels, ways
        As for `nearest_centroid`.

    Raises
    ------
    ConfigError, DataError, DivergenceError
        As `check_support`.
    """
    check_support(features, labels, ways)
    prototypes = unit_length(unit_class_means(features, labels, ways))
    return LinearHead(prototypes, prototypes.new_zeros(prototypes.shape[:2]))
