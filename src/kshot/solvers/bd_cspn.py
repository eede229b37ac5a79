"""Rectified prototypes: BD-CSPN (Liu, Song and Qin 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.errors import check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import class_rows
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import joined_at_unit_length, lengths_of


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
        shots = support.shape[1]
        images = joined_at_unit_length(support, query)
        members = class_rows(labels, ways, images.dtype)
        rows = means_and_shift(members, query.shape[1])
        inner = (rows @ images) @ images.mT
        combination = rectified(rows, inner, members, sharpness=self.sharpness)
        prototypes = combination @ images
        return (prototypes @ images[:, shots:].mT / lengths_of(prototypes)).mT


def means_and_shift(members: Tensor, queries: int) -> Tensor:
    """Class means and BD-CSPN's shift as combinations (B, N + 1, S + T) of support and query images.

    Parameters
    ----------
    members
        (B, N, S), 1 for the support images of a class, otherwise 0.
    queries
        T; the shift is the mean of the support images minus that of the query images.
    """
    tasks, ways, shots = members.shape
    rows = members.new_zeros(tasks, ways + 1, shots + queries)
    torch.div(members, members.sum(2, keepdim=True), out=rows[:, :ways, :shots])
    rows[:, ways, :shots], rows[:, ways, shots:] = 1 / shots, -1 / queries
    return rows


def rectified(rows: Tensor, inner: Tensor, members: Tensor, *, sharpness: float) -> Tensor:
    """The class means of BD-CSPN as combinations (B, N, S + T) of images of unit length.

    Everything about the shifted query images follows from inner products, so that they need not be written down.

    Parameters
    ----------
    rows
        As `means_and_shift` gives them.
    inner
        Inner products (B, N + 1, S + T) of these with the images.
    members
        (B, N, S), as for `means_and_shift`.
    sharpness
        epsilon of the paper.
    """
    shots = members.shape[2]
    among = inner @ rows.mT  # of the means and the shift with each other
    squared = among.diagonal(dim1=1, dim2=2)
    cosines, to_shift = inner[:, :-1].clone(), inner[:, -1:, shots:]
    shifted = cosines[:, :, shots:]
    # |x + shift|^2 for |x| = 1; an image of zeros, whose direction is the shift's alone, is weighted as if |x| were 1
    lengths = (1 + 2 * to_shift + squared[:, -1:].unsqueeze(2)).clamp(min=1e-12).sqrt()
    shifted.add_(among[:, :-1, -1:]).div_(lengths)
    cosines /= squared[:, :-1].clamp(min=1e-24).sqrt().unsqueeze(2)
    joined = torch.zeros_like(shifted).scatter_(1, shifted.max(1, keepdim=True).indices, 1)
    weights = (cosines - 1).mul_(sharpness).exp_().mul_(torch.cat([members, joined], 2))
    weights /= weights.sum(2, keepdim=True)
    # every shifted image brings the shift with it
    return weights.addcmul_(weights[:, :, shots:].sum(2, keepdim=True), rows[:, -1:])
