"""The multi-class support vector machine of MetaOptNet (Lee et al. 2019), solved in the dual for a batch of tasks.

Grouped by class, the Hessian of the dual is the same kernel matrix K for each of the N classes, and only the constraint
that the coefficients of an image sum to zero couples the classes. A Newton step of the interior-point method therefore
factors N + 1 matrices of the size S of the support set, and never one of the size N*S.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kshot.errors import ConfigError, DataError
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.gram import cholesky, gram, unsound_task
from kshot.solvers.heads import LinearHead, check_support, one_hot

_MAX_ITERATIONS = 60  # five to twenty are usual
_COMPLEMENTARITY = 0.05  # mean product of slack and multiplier at which a task is solved, in units of eps * coefficient
_TO_THE_BOUND = (0.9, 1 - 1e-5)  # least and largest share of the way to the nearest bound that a step goes
_SHARPNESS, _STIFFEST = 8, 1e10  # of the bounds in the last step: the power of their stiffness, and its largest value
_TASK = (1, 2)  # the dimensions within a task
_FACTOR_BYTES = 1 << 25  # of one set of matrices of the tasks that are solved together; a few such sets are alive


@adaptations.register("svm")
class SupportVectorMachine(HeadAdaptation):
    """The multi-class support vector machine of MetaOptNet (Lee et al. 2019).

    Parameters
    ----------
    c
        Weight C of the hinge losses relative to 1/2 |W|^2.
    diagonal_shift
        Added to the diagonal of the kernel; MetaOptNet's release adds 1, its paper nothing.
    """

    def __init__(self, *, c: float = 0.1, diagonal_shift: float = 1.0) -> None:
        check_svm(c, diagonal_shift)
        self.c, self.diagonal_shift = c, diagonal_shift

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        """The optimum of each task, of features (B, S, D) and labels (B, S)."""
        return svm(features, labels, ways, c=self.c, diagonal_shift=self.diagonal_shift)


def svm(features: Tensor, labels: Tensor, ways: int, *, c: float = 0.1, diagonal_shift: float = 1.0) -> LinearHead:
    """Crammer and Singer's (2001) multi-class support vector machine without bias; differentiable in `features`.

    With K = X X' + diagonal_shift * I and y_s the class of image s, the coefficients a (N, S) minimise

        1/2 sum_n a_n' K a_n - sum_s a[y_s, s]   subject to   a[n, s] <= C [n = y_s]   and   sum_n a[n, s] = 0,

    and the weight of class n is sum_s a[n, s] x_s. The gradient comes from the conditions of optimality at the minimum,
    not from the iterations that led to it. All is computed in float64; for features of float64 the minimum is exact to
    rounding, for those of float32 it stops when the weights are within about 1e-4 of their largest entry. The gradient
    jumps at a point at which a coefficient reaches its bound or leaves it; a task that is as close as this to such a
    point may get the gradient of the other side.

    Parameters
    ----------
    features
        Support features (B, S, D), floating point. Gradients, of the first order, flow back to them.
    labels
        Their classes, (B, S) int64 in 0..ways-1; classes may have different numbers of images.
    ways
        N, the number of classes.
    c
        Weight C of the hinge losses relative to 1/2 |W|^2.
    diagonal_shift
        Added to the diagonal of the kernel. The release of MetaOptNet adds 1, its paper nothing; 0 needs support images
        with linearly independent features.

    Raises
    ------
    ConfigError
        `c` is not above 0, or `diagonal_shift` is below 0.
    DataError
        The kernel is singular to working precision. Both also as `check_support`.
    """
    check_svm(c, diagonal_shift)
    check_support(features, labels, ways)
    exact = features.double()
    kernel = gram(exact) + diagonal_shift * torch.eye(features.shape[1], dtype=exact.dtype, device=exact.device)
    _refuse_singular(kernel.detach())
    members = one_hot(labels, ways, exact.dtype).mT
    tolerance = _COMPLEMENTARITY * torch.finfo(features.dtype).eps
    coefficients = cast(Tensor, _DualOptimum.apply(kernel, members, c, tolerance))
    weight = (coefficients @ exact).to(features.dtype)
    return LinearHead(weight, weight.new_zeros(weight.shape[:2]))


def check_svm(c: float, diagonal_shift: float) -> None:
    """ConfigError if the options of `svm` make no sense; learners check them before they train."""
    if not 0 < c < math.inf:
        raise ConfigError(f"the C of a support vector machine is {c}, but must be above 0")
    if not 0 <= diagonal_shift < math.inf:
        raise ConfigError(f"diagonal_shift is {diagonal_shift}, but must be at least 0")


def _refuse_singular(kernel: Tensor) -> None:
    """DataError if a kernel (B, S, S) is not positive definite to the precision of its entries."""
    _, sound = cholesky(kernel)
    if not sound.all():
        raise DataError(
            f"the kernel of task {unsound_task(sound)} is singular to working precision: features of support images "
            "are linearly dependent, or too long for this diagonal_shift; raise it, or normalise the features"
        )


class _DualOptimum(torch.autograd.Function):
    """Coefficients (B, N, S) at the optimum as a function of the kernel (B, S, S)."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, members: Tensor, c: float, tolerance: float) -> Tensor:
        at_once = max(1, _FACTOR_BYTES // (members[0].numel() * kernel[0, 0].nbytes))
        duals = [_Dual(*part, c) for part in zip(kernel.split(at_once), members.split(at_once))]
        slacks, ctx.systems = zip(*(dual.minimise(tolerance) for dual in duals))
        coefficients = c * members - torch.cat(slacks)
        ctx.save_for_backward(coefficients)
        return coefficients

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """If the kernel changes by dK, the coefficients change by the Newton step for the right side -a dK."""
        (coefficients,) = ctx.saved_tensors
        parts = gradient.split([len(system.inverses) for system in ctx.systems])
        adjoint = torch.cat([system.solve(part)[0] for system, part in zip(ctx.systems, parts)])
        return -adjoint.mT @ coefficients, None, None, None


class _NewtonSystem:
    """The equations K x_n + d_n x_n + shift = right_n for every class n, with sum_n x_n = 0.

    kernel: K (B, S, S); diagonal: d (B, N, S), positive.
    """

    def __init__(self, kernel: Tensor, diagonal: Tensor) -> None:
        blocks = kernel.unsqueeze(1).repeat(1, diagonal.shape[1], 1, 1)
        blocks.diagonal(dim1=-2, dim2=-1).add_(diagonal)
        self.inverses = torch.cholesky_inverse(torch.linalg.cholesky_ex(blocks)[0])
        self.coupling, _ = torch.linalg.cholesky_ex(self.inverses.sum(1))

    def solve(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, S) and shift (B, 1, S) for `right` (B, N, S)."""
        uncoupled = self._uncoupled(right)
        shift = torch.cholesky_solve(uncoupled.sum(1).unsqueeze(-1), self.coupling).mT
        return uncoupled - self._uncoupled(shift.expand_as(right)), shift

    def _uncoupled(self, right: Tensor) -> Tensor:
        # the inverses are symmetric, and a row times a matrix is four times as fast as a matrix times a column
        return (right.unsqueeze(-2) @ self.inverses).squeeze(-2)


class _Dual:
    """The dual problem of some tasks, and the point that its minimisation has reached, inside of all bounds.

    kernel: K (B, S, S); members: (B, N, S), 1 if the image belongs to the class; c: the bound of their coefficients.
    slacks: C [n = y_s] - a[n, s], (B, N, S), above 0; multipliers: of the bounds, (B, N, S), above 0.
    shift: multiplier of the constraint that coefficients of an image sum to 0, (B, 1, S).
    size: of typical coefficients, (B, 1, 1), at most c.
    """

    def __init__(self, kernel: Tensor, members: Tensor, c: float) -> None:
        self.kernel, self.members, self.c = kernel, members, c
        # On the way that favours each image's own class, the objective is least at this length.
        outward = members - 1 / members.shape[1]
        lowest = (outward * members).sum(_TASK, True) / (outward @ kernel * outward).sum(_TASK, True)
        self.size = lowest.clamp(max=c)
        self.slacks = c * members - self.size * outward
        pull = members - (c * members - self.slacks) @ kernel
        low, high = pull.aminmax(dim=1, keepdim=True)
        self.shift = low - (high - low).mean(_TASK, True) - 0.1
        self.multipliers = pull - self.shift

    def minimise(self, tolerance: float) -> tuple[Tensor, _NewtonSystem]:
        """Slacks at the optimum, and the system of the last step.

        A task that is solved stays unchanged while others go on, so that no result depends on the rest of the batch.
        The last step costs nothing in training, since the gradient needs its system.
        """
        for _ in range(_MAX_ITERATIONS):
            unsolved = ~((self.slacks * self.multipliers).mean(_TASK, True) <= tolerance * self.size)
            if not unsolved.any():
                return self._settled()
            self._step(unsolved)
        raise DataError(
            f"the support vector machine of task {int(unsolved.flatten().nonzero()[0])} is not solved after "
            f"{_MAX_ITERATIONS} steps: its features differ too much in length; normalise them, or choose a smaller C"
        )

    def _settled(self) -> tuple[Tensor, _NewtonSystem]:
        """Slacks after a step that takes each coefficient as either at its bound or free, and the system of this step.

        The bounds of a task that is almost solved still yield a little, by the ratio of slack to multiplier, which is
        visible in the gradient long before it is in the weights. A high power of this ratio leaves next to nothing.
        """
        curvature = self.kernel.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
        stiffness = self.multipliers / (self.slacks * curvature)
        diagonal = curvature * stiffness.pow(_SHARPNESS).clamp(1 / _STIFFEST, _STIFFEST)
        system = _NewtonSystem(self.kernel, diagonal)
        pull = self.members - (self.c * self.members - self.slacks) @ self.kernel - self.shift
        step, _ = system.solve(pull + torch.where(stiffness > 1, diagonal * self.slacks - self.multipliers, 0))
        rounding = torch.finfo(step.dtype).eps * self.size  # by which coefficients at their bounds may pass them
        return self.slacks - step / _furthest(step / (self.slacks + rounding)), system

    def _step(self, moving: Tensor) -> None:
        """A step of Mehrotra's (1992) predictor and corrector for the tasks that are `moving` (B, 1, 1)."""
        slacks, multipliers = self.slacks, self.multipliers
        gap = (slacks * multipliers).mean(_TASK, True)
        diagonal = multipliers / slacks
        system = _NewtonSystem(self.kernel, diagonal)
        pull = self.members - (self.c * self.members - slacks) @ self.kernel - self.shift

        step, _ = system.solve(pull)
        change = diagonal * step - multipliers
        length = 1 / _furthest(step / slacks, -change / multipliers)
        predicted = ((slacks - length * step) * (multipliers + length * change)).mean(_TASK, True)
        centring = (predicted / gap) ** 3

        target = (centring * gap + step * change) / slacks
        step, shift_step = system.solve(pull - target)
        change = target - multipliers + diagonal * step
        share = (1 - centring).clamp(*_TO_THE_BOUND)
        length = moving * (share / _furthest(step / slacks, -change / multipliers)).clamp(max=1)
        self.slacks = slacks - length * step
        self.multipliers = multipliers + length * change
        self.shift = self.shift + length * shift_step


def _furthest(*relative: Tensor) -> Tensor:
    """The reciprocal of the step length that reaches a bound, at least 1: (B, 1, 1)."""
    return torch.stack([part.amax(_TASK, True) for part in relative]).amax(0).clamp(min=1)
