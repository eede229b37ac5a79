"""Class weights that descend an objective of support and query images together: TIM, alpha-TIM, and entropy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kshot.solvers.adam import adam
from kshot.solvers.heads import class_rows
from kshot.solvers.products import product
from kshot.solvers.transformed import joined_at_unit_length

QuerySlopes = Callable[[Tensor], Tensor]  # probabilities (B, N, T) of query images, to the objective's slope in them


def descended_scores(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    ways: int,
    *,
    query_slopes: QuerySlopes,
    cross_entropy_weight: float,
    temperature: float,
    learning_rate: float,
    steps: int,
) -> Tensor:
    """Scores (B, T, N) of the query images after Adam on the weights w of the classes.

    With features x of unit length, the score of class k is -temperature / 2 |x - w_k|^2, up to what all classes share
    (Boudiaf et al. 2020, eq. 2). The weights start at the class means, and descend

        cross_entropy_weight * mean cross-entropy of the support images + an objective of the query images

    Parameters
    ----------
    support, labels, query, ways
        As for `TransductiveAdaptation.joint_scores`.
    query_slopes
        The derivative of the objective of a task's query images, (B, N, T), in their probabilities (B, N, T).
    cross_entropy_weight
        Weight of the support images.
    temperature
        Scale of the scores.
    learning_rate, steps
        Of Adam.
    """
    images = joined_at_unit_length(support, query)
    shots = support.shape[1]
    members = class_rows(labels, ways, images.dtype)

    def gradient(weights: Tensor) -> Tensor:
        errors = scores_of(images, weights, temperature).softmax(1)
        of_support, of_query = errors[:, :, :shots], errors[:, :, shots:]
        of_support.sub_(members).mul_(temperature * cross_entropy_weight / shots)
        slopes = query_slopes(of_query)
        of_query.mul_(slopes.sub_((of_query * slopes).sum(1, keepdim=True))).mul_(temperature)
        return product(errors, images).addcmul_(errors.sum(2, keepdim=True), weights, value=-1)

    start = product(members / members.sum(2, keepdim=True), images[:, :shots])
    weights = adam(start, gradient, rate=learning_rate, steps=steps)
    return scores_of(images[:, shots:], weights, temperature).mT.contiguous()


def scores_of(images: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """-temperature / 2 |x - w|^2 without the term |x|^2, (B, N, M) of images (B, M, D) and weights (B, N, D)."""
    lengths = weights.square().sum(2, keepdim=True)
    return product(weights, images.mT).sub_(lengths, alpha=0.5).mul_(temperature)


def logarithm(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities, of 1e-12 at least, as in the releases."""
    return probabilities.clamp(min=1e-12).log()
