"""Rectified prototypes: BD-CSPN (Liu, Song and Qin 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.errors import check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_means, one_hot
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import unit_length


@adaptations.register("bd-cspn")
class BDCSPN(TransductiveAdaptation):
    """Cosine to class means that also count the query images near them, after a shift (Liu et al. 2020, section 3).

    ::

        query images: x = x + mean of the support images - mean of the query images      (cross-class bias)
        a query image belongs to the class whose mean has the highest cosine to it
        mean of class k = weighted mean of its support and query images,                 (intra-class bias)
            weights in proportion to exp(sharpness * cosine to the former mean)

    Features are of unit length before the shift. Query images are scored as they are, without it.

    Parameters
    ----------
    sharpness
        epsilon; the paper has 10.
    """

    def __init__(self, *, sharpness: float = 10.0) -> None:
        check_positive(sharpness=sharpness)
        self.sharpness = sharpness

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Cosines (B, T, N) of the query features (B, T, D) to the rectified class means."""
        support, query = unit_length(support), unit_length(query)
        prototypes = rectified_prototypes(support, labels, query, ways, sharpness=self.sharpness)
        return query @ unit_length(prototypes).mT


def rectified_prototypes(support: Tensor, labels: Tensor, query: Tensor, ways: int, *, sharpness: float) -> Tensor:
    """The class means (B, N, D) of BD-CSPN, of unit-length support (B, S, D) and query features (B, T, D)."""
    shift = support.mean(1, keepdim=True) - query.mean(1, keepdim=True)
    images = torch.cat([support, query + shift], 1)
    cosines = unit_length(images) @ unit_length(class_means(support, labels, ways)).mT
    members = one_hot(labels, ways, images.dtype)
    joined = one_hot(cosines[:, support.shape[1] :].argmax(-1), ways, images.dtype)
    weights = (sharpness * (cosines - 1)).exp() * torch.cat([members, joined], 1)
    return (weights / weights.sum(1, keepdim=True)).mT @ images
