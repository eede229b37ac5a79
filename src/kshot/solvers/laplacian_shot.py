"""LaplacianShot: query images that are close to each other are of one class (Ziko, Dolz, Granger and Ben Ayed 2020)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from kshot.errors import check_not_negative, check_positive
from kshot.solvers.adaptation import adaptations
from kshot.solvers.bd_cspn import rectified_prototypes
from kshot.solvers.distances import nearest_neighbours, squared_distances
from kshot.solvers.heads import class_means
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transformed import unit_length

_SHARPNESS = 10.0
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
    steps
        The most rounds; the release has 20.
    """

    def __init__(self, *, penalty: float = 0.7, neighbors: int = 3, rectified: bool = True, steps: int = 100) -> None:
        check_not_negative(penalty=penalty)
        check_positive(neighbors=neighbors, steps=steps)
        self.penalty, self.neighbors, self.rectified, self.steps = penalty, neighbors, rectified, steps

    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """The logarithm of the assignments (B, T, N) of the query features (B, T, D)."""
        support, query = unit_length(support), unit_length(query)
        if self.rectified:
            prototypes = rectified_prototypes(support, labels, query, ways, sharpness=_SHARPNESS)
        else:
            prototypes = class_means(support, labels, ways)
        distances = squared_distances(query, prototypes)
        adjacent = nearest_neighbours(squared_distances(query, query), self.neighbors)
        logs = (-distances).log_softmax(-1)
        bound = logs.new_full((len(logs),), torch.inf)
        active = torch.arange(len(logs), device=logs.device)
        for step in range(self.steps):
            pulls = self.penalty * (adjacent[active] @ logs[active].exp())
            logs[active] = (pulls - distances[active]).log_softmax(-1)
            assignments = logs[active].exp()
            pulls = self.penalty * (adjacent[active] @ assignments)
            reached = (assignments * (logs[active] + distances[active] - pulls)).sum((1, 2))
            settled = (reached - bound[active]).abs() <= _CONVERGED * bound[active].abs()
            bound[active] = reached
            if step > 1:
                active = active[~settled]
            if not len(active):
                return logs
        self._warn(len(active), len(logs))
        return logs

    def _warn(self, unsettled: int, tasks: int) -> None:
        warnings.warn(
            f"LaplacianShot did not settle within {self.steps} rounds on {unsettled} of {tasks} tasks; its assignments "
            f"of the last round are used. Lower the penalty, or give more steps",
            RuntimeWarning,
            stacklevel=2,
        )
