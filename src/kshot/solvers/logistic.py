"""Multinomial logistic regression for thousands of tasks at once, to the optimum that scikit-learn defines."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from kshot.errors import ConfigError
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.anderson import Smoother, accelerated
from kshot.solvers.heads import LinearHead, check_support
from kshot.solvers.newton import newton
from kshot.solvers.objective import SupportObjective

# Tasks are solved in chunks of about this many bytes: memory stays bounded, and threads and kernels start seldom.
_CHUNK_BYTES = 128 << 20


@adaptations.register("logistic")
class LogisticRegression(HeadAdaptation):
    """Logistic regression, as scikit-learn's: 1/2 |W|^2 + C * SUM_i cross-entropy_i, bias not penalised.

    Parameters
    ----------
    c
        Weight C of the summed cross-entropy; Wang et al. (2021) use 3, Tian et al. (2020) use 1.
    """

    passes_gradients = False

    def __init__(self, *, c: float = 3.0) -> None:
        check_logistic(c)
        self.c = c

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The optimum of each task's regression, of features (B, S, D) and labels (B, S)."""
        return logistic_regression(features, labels, ways, c=self.c)


@torch.no_grad()
def logistic_regression(
    features: Tensor, labels: Tensor, ways: int, *, c: float = 3.0, tol: float = 1e-6
) -> LinearHead:
    """Minimise 1/2 |W|^2 + C * SUM_i cross-entropy_i for every task; the bias is not penalised.

    This is the objective of scikit-learn's ``LogisticRegression(C=c)``, also at 2 ways, where scikit-learn fits ONE
    row w by a sigmoid with penalty 1/2 |w|^2: as a softmax over the rows -w/2 and w/2 that is the same objective with
    C/2, which is used. The minimum is unique but for a constant added to all biases; theirs sums to zero.

    Two stages: accelerated minimisation of a quadratic bound (see anderson), and Newton's method for the tasks that the
    first stage leaves unsolved (see newton). If rounding keeps tasks above `tol`, a warning says how many and by how
    much.

    Parameters
    ----------
    features
        Support features (B, S, D), float32 or float64, on any device; the arithmetic is float64. No gradient flows
        back to them.
    labels
        Their classes, (B, S) int64 in 0..ways-1; classes may have different numbers of images.
    ways
        N, the number of classes.
    c
        Weight C of the summed cross-entropy, positive.
    tol
        A task is solved when its scores, for any image no farther from the mean support feature than the farthest
        support image, are within `tol` of the optimum (a bound from strong convexity, and rarely tight).
        Probabilities are then within tol / 2.

    Raises
    ------
    ConfigError
        `c` or `tol` is not positive.
    DataError
        Features are too large for float64 at this `c`. Both also as `check_support`.
    """
    check_logistic(c)
    if not 0 < tol < math.inf:
        raise ConfigError(f"logistic regression's tol is {tol}, but must be a positive number")
    check_support(features, labels, ways)
    tasks, support, dimension = features.shape
    weight = features.new_empty(tasks, ways, dimension)
    bias = features.new_empty(tasks, ways)
    residual = torch.empty(tasks, dtype=torch.float64, device=features.device)
    chunk = max(1, _CHUNK_BYTES // (8 * support * (2 * dimension + 2 * min(support, 2 * dimension) + 16 * ways)))
    for start in range(0, tasks, chunk):
        rows = slice(start, start + chunk)
        weight[rows], bias[rows], residual[rows] = _solve(features[rows], labels[rows], ways, c, tol)
    _warn_where_unsolved(residual, tol)
    return LinearHead(weight, bias)


def check_logistic(c: float) -> None:
    """ConfigError if the weight of `logistic_regression` makes no sense; learners check it before they train."""
    if not 0 < c < math.inf:
        raise ConfigError(f"logistic regression's c is {c}, but must be a positive number")


def _solve(features: Tensor, labels: Tensor, ways: int, c: float, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weight (b, N, D), bias (b, N) and residual (b,) of a few tasks, float64."""
    centred = features.to(torch.float64, copy=True)
    mean = centred.mean(1, keepdim=True)
    centred -= mean
    objective = SupportObjective.of(centred, labels, ways, c / 2 if ways == 2 else c)
    scores, residual = accelerated(objective, Smoother.of(centred, objective), tol=tol)
    hard = (~(residual <= tol)).nonzero().squeeze(1)
    if len(hard):
        scores[hard], residual[hard] = newton(objective.select(hard), centred[hard], tol=tol)
    weight = objective.errors(scores).mul_(-objective.c) @ centred
    # Centred support features average to zero, so that the mean score is the bias at their mean.
    bias = scores.mean(2) - (weight @ mean.mT).squeeze(2)
    return weight, bias - bias.mean(1, keepdim=True), residual


def _warn_where_unsolved(residual: Tensor, tol: float) -> None:
    unsolved = ~(residual <= tol)
    count = int(unsolved.sum())
    if count:
        warnings.warn(
            f"logistic regression stopped short of tol={tol:g} on {count} of {len(residual)} tasks; "
            f"the largest residual is {float(residual[unsolved].max()):.1e}",
            RuntimeWarning,
            stacklevel=3,
        )
