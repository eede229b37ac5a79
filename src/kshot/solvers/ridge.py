"""Ridge regression onto one-hot labels (Bertinetto et al. 2019, eqs. 5-6), by Cholesky in the smaller of two spaces."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.gram import cholesky, gram, unsound_task
from kshot.solvers.heads import LinearHead, check_support, one_hot


@adaptations.register("ridge")
class Ridge(HeadAdaptation):
    """Ridge regression onto one-hot labels (Bertinetto et al. 2019).

    Parameters
    ----------
    l2
        Weight of |W|^2 relative to the summed squared errors.
    """

    def __init__(self, *, l2: float = 1.0) -> None:
        check_ridge(l2)
        self.l2 = l2

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The solution of each task's regression, of features (B, S, D) and labels (B, S)."""
        return ridge(features, labels, ways, l2=self.l2)


def ridge(features: Tensor, labels: Tensor, ways: int, *, l2: float | Tensor = 1.0) -> LinearHead:
    """Minimise |X W' - Y|^2 + l2 |W|^2 with one-hot targets Y and no bias; differentiable in `features` and `l2`.

    With S <= D the S x S system is solved, W' = X' (X X' + l2 I)^-1 Y, otherwise the D x D one,
    W' = (X' X + l2 I)^-1 X' Y; the two are equal.

    Parameters
    ----------
    features
        Support features (B, S, D), floating point.
    labels
        Their classes, (B, S) int64 in 0..ways-1; classes may have different numbers of images.
    ways
        N, the number of classes.
    l2
        The penalty, a positive number, or a tensor with one element (a learnt penalty).

    Raises
    ------
    ConfigError
        `l2` is a number that is not positive, or a tensor of several elements.
    DivergenceError
        `l2` is a tensor that is not positive and finite.
    DataError
        The system is singular to working precision. All three also as `check_support`.
    """
    if not isinstance(l2, Tensor):
        check_ridge(l2)
    elif l2.numel() != 1:
        raise ConfigError(f"ridge's l2 is a tensor of shape {tuple(l2.shape)}, but all tasks share one penalty")
    else:
        l2 = l2.reshape(())
    check_support(features, labels, ways)
    targets = one_hot(labels, ways, features.dtype)
    if features.shape[1] <= features.shape[2]:
        weight = _solve(gram(features), l2, targets).mT @ features
    else:
        weight = _solve(gram(features.mT), l2, features.mT @ targets).mT
    return LinearHead(weight, weight.new_zeros(weight.shape[:2]))


def check_ridge(l2: float) -> None:
    """ConfigError if the penalty of `ridge` makes no sense; learners check it before they train."""
    if not 0 < l2 < math.inf:
        raise ConfigError(f"ridge's l2 is {l2}, but must be positive")


def _solve(products: Tensor, l2: float | Tensor, right: Tensor) -> Tensor:
    """(products + l2 I)^-1 right; refuses a penalty or a task as `ridge` says, with one wait for the device."""
    system = products + l2 * torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)
    factor, sound = cholesky(system.detach())
    if isinstance(l2, Tensor):
        sound = sound & (l2.detach() > 0)
    if not sound.all():
        _explain(sound, l2)
    return cast(Tensor, _Solution.apply(system, factor, right))


def _explain(sound: Tensor, l2: float | Tensor) -> None:
    if isinstance(l2, Tensor) and not 0 < l2.item() < math.inf:
        raise DivergenceError(
            f"the learnt penalty l2 of ridge is {l2.item()}, but must be positive and finite; "
            "lower the learning rate, or learn the logarithm of l2"
        )
    raise DataError(
        f"the ridge system of task {unsound_task(sound)} is singular to working precision: features are linearly "
        "dependent, or nearly so, and the penalty l2 is too small for their squared length; raise l2, normalise the "
        "features, or use float64"
    )


class _Solution(torch.autograd.Function):
    """system^-1 right, by the Cholesky factor of the symmetric system; any number of times differentiable.

    Its gradient is a solution with the same factor, so that no gradient of the factorisation is needed.
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
