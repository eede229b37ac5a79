"""LaplacianShot: query images that are close to each other are of one class (Ziko, Dolz, Granger and Ben Ayed 2020)."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from kshot.errors import check_not_negative, check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.bd_cspn import rectified_means
from kshot.solvers.distances import nearest_neighbours
from kshot.solvers.heads import checked_scores, class_rows
from kshot.solvers.products import (
    SHORTEST,
    Array,
    in_stages,
    lengths,
    own_products,
    product,
    to_unit_length,
)
from kshot.solvers.transductive import TransductiveAdaptation

_CONVERGED = 1e-6  # change of the bound relative to itself, as in the release


@adaptations.register("laplacian-shot")
class LaplacianShot(TransductiveAdaptation):
    """Nearest class mean, with a Laplacian penalty on neighbours of different classes (Ziko et al. 2020).

    ::

        a_qk = |x_q - m_k|^2,  x of unit length and m_k the rectified class means of `BDCSPN`
        w_qp = 1 if x_p is one of the nearest neighbours of x_q among the query images, otherwise 0
        y_q = softmax of -a_q
        repeat:  y_q = softmax of  -a_q + penalty * SUM_p w_qp y_p                (Algorithm 1, eq. 12)

    The paper centres features by the mean of the training images, which a head does not see. The release counts an
    image among its own neighbours and leaves it out, so that its 3 neighbours are 2 here.

    Parameters
    ----------
    penalty
        lambda; the paper chooses it on validation classes, between 0.1 and 1.5.
    neighbors
        Of each query image; fewer if there are not as many others.
    rectified
        Take the rectified class means; False for plain ones.
    sharpness
        Of the rectified class means, as for `BDCSPN`.
    steps
        The most rounds; the release has 20.
    """

    chunks: ClassVar[int] = 4

    def __init__(
        self,
        *,
        penalty: float = 0.7,
        neighbors: int = 3,
        rectified: bool = True,
        sharpness: float = 10.0,
        steps: int = 100,
    ) -> None:
        check_not_negative(penalty=penalty)
        check_positive(neighbors=neighbors, sharpness=sharpness, steps=steps)
        self.penalty, self.neighbors, self.rectified = penalty, neighbors, rectified
        self.sharpness, self.steps = sharpness, steps

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """The logarithm of the assignments (B, T, N) of the query features (B, T, D)."""
        members = class_rows(labels, ways, query.dtype)
        distances, adjacent = in_stages(self._problem, members, support, query, vectors=ways + 1)
        checked_scores(distances, query)  # before anything is repeated until it settles
        return self._assigned(distances, adjacent).mT.contiguous()

    def _problem(self, members: Array, support: Array, query: Array) -> tuple[Array, Array]:
        """Squared distances (B, N, T) of query images to class means, and their neighbours in columns (B, T, T)."""
        of_query = lengths(query).swapaxes(1, 2)
        to_query = 1 / of_query.clip(SHORTEST)
        if self.rectified:
            means = rectified_means(members, support, query, to_query, sharpness=self.sharpness)
        else:
            means = members / members.sum(2, keepdims=True) * to_unit_length(support) @ support
        inner = means @ query.swapaxes(1, 2) * to_query
        squared = (of_query * to_query) ** 2  # 1, or 0 for an image of zeros
        distances = (squared + lengths(means) ** 2 - 2 * inner).clip(0)
        among = own_products(query)
        among *= -2 * to_query
        among *= to_query.swapaxes(1, 2)
        among += squared  # what all images that are compared have in common is left out
        return distances, nearest_neighbours(among, self.neighbors)

    def _assigned(self, distances: Tensor, adjacent: Tensor) -> Tensor:
        """The logarithm of the assignments (B, N, T) at distances (B, N, T), with neighbours in columns (B, T, T)."""
        assigned = torch.empty_like(distances)
        energies, places = -distances, torch.arange(len(distances), device=distances.device)
        scores = product(energies.softmax(1).mul_(self.penalty), adjacent, plus=energies)
        bound = distances.new_full((len(distances),), torch.inf)
        moving = torch.ones_like(bound, dtype=torch.bool)
        for step in range(self.steps):
            logs = scores.log_softmax(1)
            soft = logs.exp()
            scores = product(soft * self.penalty, adjacent, plus=energies)
            reached = (soft * (logs - scores)).sum((1, 2))
            settled = moving & ((reached - bound).abs() <= _CONVERGED * bound.abs())
            bound = reached
            if step < 2 or not settled.any():
                continue
            assigned[places[settled]] = logs[settled]
            moving = moving & ~settled
            left = int(moving.sum())
            if left == 0:
                return assigned
            if 2 * left <= len(moving):  # before that, it is not worth while to move the others together
                parts = (energies, scores, logs, adjacent, bound, places, moving)
                energies, scores, logs, adjacent, bound, places, moving = (part[moving] for part in parts)
        assigned[places[moving]] = logs[moving]
        self._warn(int(moving.sum()), len(distances))
        return assigned

    def _warn(self, unsettled: int, tasks: int) -> None:
        warnings.warn(
            f"LaplacianShot did not settle within {self.steps} rounds on {unsettled} of {tasks} tasks; its assignments "
            f"of the last round are used. Lower the penalty, or give more steps",
            RuntimeWarning,
            stacklevel=2,
        )
