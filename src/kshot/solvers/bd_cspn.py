"""Rectified prototypes: BD-CSPN (Liu, Song and Qin 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.errors import check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_rows
from kshot.solvers.products import product
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import lengths_of


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
        lengths = lengths_of(support), lengths_of(query)
        members = class_rows(labels, ways, query.dtype)
        prototypes = rectified_means(support, query, members, lengths=lengths, sharpness=self.sharpness)
        directions = prototypes.div_(lengths_of(prototypes))
        return product(query, directions.mT).div_(lengths[1])


def rectified_means(
    support: Tensor, query: Tensor, members: Tensor, *, lengths: tuple[Tensor, Tensor], sharpness: float
) -> Tensor:
    """The class means (B, N, D) of BD-CSPN.

    Everything about images of unit length and about the shifted ones follows from inner products with the images as
    they are, so that neither are written down.

    Parameters
    ----------
    support, query
        Features (B, S, D) and (B, T, D).
    members
        (B, N, S), 1 for the support images of a class, otherwise 0.
    lengths
        Of the features, (B, S, 1) and (B, T, 1).
    sharpness
        epsilon of the paper.
    """
    to_unit = [length.mT.reciprocal() for length in lengths]
    counts = members.sum(2, keepdim=True)
    means = product((members / counts).mul_(to_unit[0]), support)
    shift = product(counts.mT / support.shape[1], means).sub_(product(to_unit[1] / query.shape[1], query))
    points = torch.cat([means, shift], 1)
    among = product(points, points.mT)
    of_mean, of_shift = among.diagonal(dim1=1, dim2=2).unsqueeze(2).split([len(means[0]), 1], 1)
    of_mean = of_mean.clamp(min=1e-24).rsqrt_()
    of_support = product(means, support.mT).mul_(to_unit[0]).mul_(of_mean)  # cosines (B, N, S)
    inner = product(points, query.mT).mul_(to_unit[1])
    # |x + shift|^2 for |x| = 1; an image of zeros, whose direction is the shift's alone, is weighted as if |x| were 1
    shifted = inner[:, -1:].mul(2).add_(of_shift + 1).clamp_(min=1e-12).rsqrt_()
    of_query = (inner[:, :-1] + among[:, :-1, -1:]).mul_(shifted).mul_(of_mean)  # cosines (B, N, T)
    joined = torch.zeros_like(of_query).scatter_(1, of_query.max(1, keepdim=True).indices, 1)
    of_support = of_support.sub_(1).mul_(sharpness).exp_().mul_(members)
    of_query = of_query.sub_(1).mul_(sharpness).exp_().mul_(joined)
    shifts = of_query.sum(2, keepdim=True)  # every shifted image brings the shift with it
    total = of_support.sum(2, keepdim=True).add_(shifts)
    rectified = product(of_support.mul_(to_unit[0]), support)
    return rectified.add_(product(of_query.mul_(to_unit[1]), query)).addcmul_(shifts, shift).div_(total)
