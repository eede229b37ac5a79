"""Ridge regression onto one-hot labels (Bertinetto et al. 2019, eqs. 5-6), by Cholesky in the smaller of two spaces."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError
from kshot.solvers.gram import gram
from kshot.solvers.heads import LinearHead, check_support, one_hot


def ridge(features: Tensor, labels: Tensor, ways: int, l2: float | Tensor = 1.0) -> LinearHead:
    """Minimise |X W' - Y|^2 + l2 |W|^2 with one-hot targets Y and no bias; differentiable in `features` and `l2`.

    With S <= D the S x S system is solved, W' = X' (X X' + l2 I)^-1 Y, otherwise the D x D one,
    W' = (X' X + l2 I)^-1 X' Y; the two are equal.

    features: (B, S, D); labels: (B, S) int64 in 0..ways-1.
    l2: penalty, a positive number or a tensor with one element (a learnt penalty).
    Raises ConfigError where `l2` is a number that is not positive, DataError where the system is singular to working
    precision, and as `check_support`.
    """
    if not isinstance(l2, Tensor):
        check_ridge(l2)
    check_support(features, labels, ways)
    targets = one_hot(labels, ways, features.dtype)
    if features.shape[1] <= features.shape[2]:
        weight = _solve(gram(features), l2, targets).mT @ features
    else:
        weight = _solve(gram(features.mT), l2, features.mT @ targets).mT
    return LinearHead(weight, weight.new_zeros(weight.shape[:2]))


def check_ridge(l2: float) -> None:
    """ConfigError where the penalty of `ridge` makes no sense; learners ask before they train."""
    if not 0 < l2 < math.inf:
        raise ConfigError(f"ridge's l2 is {l2}, but must be positive")


def _solve(products: Tensor, l2: float | Tensor, right: Tensor) -> Tensor:
    """(products + l2 I)^-1 right; DataError where a task has no Cholesky factor."""
    system = products + l2 * torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
    factor, failures = torch.linalg.cholesky_ex(system.detach())
    if failures.any():
        task = int(failures.nonzero()[0])
        raise DataError(
            f"the ridge system of task {task} is singular to working precision: the penalty l2 is too small beside "
            "the squared length of the features; raise l2, normalise the features, or use float64"
        )
    return cast(Tensor, _Solution.apply(system, factor, right))


class _Solution(torch.autograd.Function):
    """system^-1 right, by the Cholesky factor of the symmetric system; any number of times differentiable.

    Its gradient is a solution with the same factor, and spares that of the factorisation.
    """

    @staticmethod
    def forward(ctx: Any, system: Tensor, factor: Tensor, right: Tensor) -> Tensor:
        solution = torch.cholesky_solve(right, factor)
        ctx.save_for_backward(system, factor, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        system, factor, solution = ctx.saved_tensors
        adjoint = cast(Tensor, _Solution.apply(system, factor, gradient))
        return -adjoint @ solution.mT, None, adjoint
