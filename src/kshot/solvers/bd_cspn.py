"""Rectified prototypes: BD-CSPN (Liu, Song and Qin 2020)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kshot.errors import check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_rows
from kshot.solvers.products import (
    SHORTEST,
    Array,
    exponential,
    in_stages,
    joined,
    largest,
    lengths,
    to_unit_length,
)
from kshot.solvers.transductive import TransductiveAdaptation


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

    chunks: ClassVar[int] = 8

    def __init__(self, *, sharpness: float = 10.0) -> None:
        check_positive(sharpness=sharpness)
        self.sharpness = sharpness

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Cosines (B, T, N) of the query features (B, T, D) to the rectified class means."""
        members = class_rows(labels, ways, query.dtype)
        (cosines,) = in_stages(self._cosines, members, support, query, vectors=ways + 1)
        return cosines.mT.contiguous()

    def _cosines(self, members: Array, support: Array, query: Array) -> tuple[Array]:
        to_query = to_unit_length(query)
        means = rectified_means(members, support, query, to_query, sharpness=self.sharpness)
        return ((means @ query.swapaxes(1, 2)) * to_query / lengths(means).clip(SHORTEST),)


def rectified_means(members: Array, support: Array, query: Array, to_query: Array, *, sharpness: float) -> Array:
    """The class means (B, N, D) of BD-CSPN.

    All about images of unit length and about shifted ones follows from inner products with the images as they are.

    Parameters
    ----------
    members
        (B, N, S), 1 for the support images of a class, otherwise 0.
    support, query
        Features (B, S, D) and (B, T, D).
    to_query
        The factors (B, 1, T) that bring query images to unit length.
    sharpness
        epsilon of the paper.
    """
    to_support = to_unit_length(support)
    counts = members.sum(2, keepdims=True)
    means = (members / counts * to_support) @ support
    shift = counts.swapaxes(1, 2) / support.shape[1] @ means - to_query / query.shape[1] @ query
    to_mean = 1 / lengths(means).clip(SHORTEST)
    inner = joined(means, shift) @ query.swapaxes(1, 2) * to_query
    # |x + shift|^2 for |x| = 1; an image of zeros, whose direction is the shift's alone, is weighted as if |x| were 1
    shifted = (2 * inner[:, -1:] + (1 + lengths(shift) ** 2)).clip(1e-12) ** 0.5
    cosines = (inner[:, :-1] + means @ shift.swapaxes(1, 2)) * to_mean / shifted
    nearest = largest(cosines)
    from_query = (cosines == nearest) * exponential(sharpness * (nearest - 1))
    cosines = means @ support.swapaxes(1, 2) * to_support * to_mean
    from_support = members * exponential(sharpness * (cosines - 1))
    shares = from_query.sum(2, keepdims=True)
    # every shifted image brings the shift with it
    total = from_query * to_query @ query + from_support * to_support @ support + shares * shift
    return total / (shares + from_support.sum(2, keepdims=True))
