"""Heads that are class means, differentiable: nearest centroid (Snell et al. 2017, eq. 2) and cosine similarity."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from kshot.solvers.heads import LinearHead, check_support, class_means


def nearest_centroid(features: Tensor, labels: Tensor, ways: int) -> LinearHead:
    """Negative SQUARED Euclidean distance to the class means p, up to a constant of the query.

    -|q - p|^2 = 2 p.q - |p|^2 - |q|^2, and the last term is the same for every class: softmax and the largest score
    do not see it. Hence weight 2p and bias -|p|^2.

    features: (B, S, D); labels: (B, S) int64 in 0..ways-1. Raises as `check_support`.
    """
    check_support(features, labels, ways)
    prototypes = class_means(features, labels, ways)
    return LinearHead(2 * prototypes, -prototypes.square().sum(-1))


def cosine(features: Tensor, labels: Tensor, ways: int) -> LinearHead:
    """Unit-length class means of unit-length features: the scores of a unit-length query are its cosines.

    A query of another length scales all scores alike, so the predicted class is the same. A feature or mean of zeros
    stays zero and scores 0.

    features: (B, S, D); labels: (B, S) int64 in 0..ways-1. Raises as `check_support`.
    """
    check_support(features, labels, ways)
    prototypes = normalize(class_means(normalize(features, dim=-1), labels, ways), dim=-1)
    return LinearHead(prototypes, prototypes.new_zeros(prototypes.shape[:2]))
