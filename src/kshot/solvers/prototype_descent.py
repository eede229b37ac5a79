"""Class weights that descend an objective of support and query images together: TIM, alpha-TIM, and entropy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kshot.solvers.adam import adam
from kshot.solvers.heads import class_means, one_hot
from kshot.solvers.transformed import unit_length

QuerySlopes = Callable[[Tensor], Tensor]  # probabilities (B, T, N) of query images, to the objective's slope in them


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
        The derivative of the objective of a task's query images, (B, T, N), in their probabilities (B, T, N).
    cross_entropy_weight
        Weight of the support images.
    temperature
        Scale of the scores.
    learning_rate, steps
        Of Adam.
    """
    images = torch.cat([unit_length(support), unit_length(query)], 1)
    shots = support.shape[1]
    targets = one_hot(labels, ways, images.dtype)

    def gradient(weights: Tensor) -> Tensor:
        probabilities = scores_of(images, weights, temperature).softmax(-1)
        of_support, of_query = probabilities[:, :shots], probabilities[:, shots:]
        slopes = query_slopes(of_query)
        errors = torch.cat(
            [
                (of_support - targets) * (cross_entropy_weight / shots),
                of_query * (slopes - (of_query * slopes).sum(-1, keepdim=True)),
            ],
            1,
        )
        return temperature * (errors.mT @ images - errors.sum(1).unsqueeze(-1) * weights)

    start = class_means(images[:, :shots], labels, ways)
    weights = adam(start, gradient, rate=learning_rate, steps=steps)
    return scores_of(images[:, shots:], weights, temperature)


def scores_of(images: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """-temperature / 2 |x - w|^2 without the term |x|^2, (B, M, N) of images (B, M, D) and weights (B, N, D)."""
    offset = (-temperature / 2) * weights.square().sum(-1)
    return torch.baddbmm(offset.unsqueeze(1), images, weights.mT, alpha=temperature)


def logarithm(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities, of 1e-12 at least, as in the releases."""
    return probabilities.clamp(min=1e-12).log()
