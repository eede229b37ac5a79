"""Label propagation over the graph of a task's images (Zhou et al. 2004; Liu et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.errors import check_positive, check_rate
from kshot.solvers.adaptation import adaptations
from kshot.solvers.distances import nearest_neighbours, squared_distances
from kshot.solvers.heads import checked_scores, one_hot
from kshot.solvers.prototype_descent import logarithm
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import unit_length


@adaptations.register("label-propagation")
class LabelPropagation(TransductiveAdaptation):
    """Labels spread from the support images over a graph of all images of the task (Liu et al. 2019, section 3.2).

    ::

        W_ij = exp(-|x_i - x_j|^2 / (2 bandwidth^2)),  x of unit length,
               if one of i and j is among the nearest neighbours of the other; otherwise 0, and W_ii = 0
        S = D^(-1/2) W D^(-1/2),  D the sums of the rows of W
        F = (I - alpha S)^(-1) Y,  Y one-hot for support images and 0 for query images        (eq. 4)
        score of class k = log F_k / SUM_l F_l

    The transductive propagation network of the paper learns a bandwidth for each image with its features; here it is
    one number, for features that are learnt otherwise. Classes of unequal size count the same: Y is divided by the
    number of support images of the class.

    Parameters
    ----------
    alpha
        How far labels spread, below 1. The paper has 0.99, and trains the features through the propagation. On features
        that were trained otherwise that is too far: of EfficientNet-Lite0 on CIFAR-FS' validation classes, 39 % of
        answers were right with 0.99, and 76 % with 0.8 (docs/heads.md).
    neighbors
        Of each image; the paper has 20. Fewer if there are not as many others.
    bandwidth
        sigma, in units of features of unit length, whose distances are between 0 and 2.
    """

    def __init__(self, *, alpha: float = 0.8, neighbors: int = 20, bandwidth: float = 0.25) -> None:
        check_rate(alpha=alpha)
        check_positive(neighbors=neighbors, bandwidth=bandwidth)
        self.alpha, self.neighbors, self.bandwidth = alpha, neighbors, bandwidth

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Log-probabilities (B, T, N) of the query features (B, T, D)."""
        images = unit_length(torch.cat([support, query], 1)).double()
        distances = squared_distances(images)
        checked_scores(distances, query)  # which a system of equations needs
        near = nearest_neighbours(distances, self.neighbors)
        weights = (-distances / (2 * self.bandwidth**2)).exp() * torch.maximum(near, near.mT)
        degrees = weights.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny).rsqrt()
        spread = degrees.unsqueeze(-1) * weights * degrees.unsqueeze(-2)
        targets = one_hot(labels, ways, images.dtype)
        known = torch.cat([targets / targets.sum(1, keepdim=True), targets.new_zeros(*query.shape[:2], ways)], 1)
        identity = torch.eye(images.shape[1], dtype=images.dtype, device=images.device)
        found = torch.linalg.solve(identity - self.alpha * spread, known)[:, support.shape[1] :].clamp(min=0)
        shares = found / found.sum(-1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
        return logarithm(shares).to(support.dtype)
