"""Inner problems whose l2 term keeps the weights of a task near a centre."""

from __future__ import annotations

from torch import Tensor

from kshot.solvers.descent import TaskLosses, Weights


def proximal(losses: TaskLosses, centre: Weights, *, l2: float) -> TaskLosses:
    """``losses(w) + l2/2 |w - centre|^2`` (Rajeswaran et al. 2019, eq. 3; Zhou et al. 2019).

    Parameters
    ----------
    losses
        The loss (B,) of each task as a function of its weights and of the number of the step.
    centre
        (B, ...) for each name of the weights.
    l2
        Weight of the squared distance.
    """

    def penalised(weights: Weights, step: int) -> Tensor:
        squares = [(weight - centre[name]).flatten(1).square().sum(1) for name, weight in weights.items()]
        return losses(weights, step) + l2 / 2 * sum(squares)

    return penalised
