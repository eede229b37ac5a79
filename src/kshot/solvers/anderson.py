"""The quick stage of logistic regression: minimise a quadratic bound again and again, with Anderson acceleration.

With X (S, D) the centred support features of a task, its head is a combination of them, W = A X with coefficients
A (N, S), and gives them the scores Z = A K + b with K = X X'. The cross-entropy's second derivative in Z is at most 1/2
(Boehning 1992). The quadratic that touches the objective at Z and, by this bound, lies above it has its minimum at

    Z+ = R T,    A+ = C/2 (R - Z+),    R = Z - 2 (softmax(Z) - Y),    T = K (K + 2/C I)^-1 + 1 1'/S.

The smoother T is formed once per task; each step then costs one product of N x S with S x S numbers, for any D.
Anderson acceleration (Walker and Ni 2011) combines the last steps so that their changes cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.errors import DataError
from kshot.solvers.objective import SupportObjective

# On unit-length features with C = 3, two or three cycles suffice; what is not solved by the last goes to `newton`.
_CYCLES = 8
_ACCELERATED_STEPS = 4
# Beyond this C * images * |x|^2 the Cholesky factor of K + 2/C I loses more digits than float64 has to spare.
_LARGEST_CONDITION = 1e12


@dataclass(frozen=True)
class Smoother:
    """T and K of B tasks, each as factors to multiply by in turn: one of S x S, or two of S x D if D is small."""

    smoother: tuple[Tensor, ...]
    kernel: tuple[Tensor, ...]

    @classmethod
    def of(cls, centred: Tensor, objective: SupportObjective) -> Smoother:
        """From centred features (B, S, D), float64; DataError if they are too large for C."""
        support, dimension = centred.shape[1:]
        condition = objective.c * support * objective.radius.square()
        if condition.max() > _LARGEST_CONDITION:
            task = int(condition.argmax())
            raise DataError(
                f"task {task}: C * images * |x|^2 reaches {float(condition[task]):.0e}, more than float64 can resolve "
                f"({_LARGEST_CONDITION:.0e}); scale the features, for instance to unit length, or lower c"
            )
        if 2 * dimension < support:
            return cls._factored(centred, 2 / objective.c)
        return cls._dense(centred, 2 / objective.c)

    @classmethod
    def _dense(cls, centred: Tensor, penalty: float) -> Smoother:
        kernel = centred @ centred.mT
        smoother = kernel.clone()
        smoother.diagonal(dim1=1, dim2=2).add_(penalty)
        smoother = torch.cholesky_inverse(torch.linalg.cholesky(smoother)).mul_(-penalty)
        smoother.add_(1 / kernel.shape[1]).diagonal(dim1=1, dim2=2).add_(1)
        return cls((smoother,), (kernel,))

    @classmethod
    def _factored(cls, centred: Tensor, penalty: float) -> Smoother:
        tasks, support, _ = centred.shape
        covariance = centred.mT @ centred
        covariance.diagonal(dim1=1, dim2=2).add_(penalty)
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centred.mT, upper=False)
        half = torch.cat([whitened, whitened.new_full((tasks, 1, support), support**-0.5)], 1)
        return cls((half.mT, half), (centred, centred.mT))

    def select(self, tasks: Tensor) -> Smoother:
        """The smoothers of these tasks only: indices (b,)."""
        return Smoother(
            tuple(factor[tasks] for factor in self.smoother), tuple(factor[tasks] for factor in self.kernel)
        )

    def smooth(self, targets: Tensor) -> Tensor:
        """R T for R (B, N, S)."""
        return _product(targets, self.smoother)

    def squared_length(self, coefficients: Tensor) -> Tensor:
        """|A X|^2 for coefficients A (B, N, S), (B,)."""
        return (coefficients * _product(coefficients, self.kernel)).sum((1, 2))


def accelerated(objective: SupportObjective, smoother: Smoother, *, tol: float) -> tuple[Tensor, Tensor]:
    """Scores (B, N, S) and residuals (B,); a task leaves the batch once its residual is within `tol`.

    The scores of a task that does not reach `tol` are of no use.
    """
    scores = torch.zeros_like(objective.targets)
    residual = torch.full_like(objective.radius, torch.inf)
    active, current = torch.arange(len(residual), device=residual.device), scores
    for _ in range(_CYCLES):
        target = _cycle(objective, smoother, current)
        # A cycle ends with a plain step, since only then do scores and coefficients belong to one head.
        current = smoother.smooth(target)
        errors = objective.errors(current)
        gradient = (target - current).mul_(objective.c / 2).add_(errors, alpha=objective.c)
        left = objective.residual(smoother.squared_length(gradient), errors)
        scores[active], residual[active] = current, left
        remaining = (~(left <= tol)).nonzero().squeeze(1)
        if len(remaining) == 0:
            break
        if len(remaining) < len(left):
            active, current = active[remaining], current[remaining]
            objective, smoother = objective.select(remaining), smoother.select(remaining)
    return scores, residual


def _cycle(objective: SupportObjective, smoother: Smoother, scores: Tensor) -> Tensor:
    """Accelerated steps from `scores`; returns R for one more step.

    The changes of the residual are kept orthonormal, each with the change of the step that it came with, so that the
    best combination is read off by inner products and no system is solved.
    """
    changes: list[tuple[Tensor, Tensor]] = []
    step = smoother.smooth(scores - 2 * objective.errors(scores))
    residual = step - scores
    scores = step
    for _ in range(_ACCELERATED_STEPS):
        previous_step, previous_residual = step, residual
        step = smoother.smooth(scores - 2 * objective.errors(scores))
        residual = step - scores
        residual_change, step_change = residual - previous_residual, step - previous_step
        _project(residual_change, step_change, changes)
        length = residual_change.square().sum((1, 2), keepdim=True).sqrt_().clamp_(min=torch.finfo(step.dtype).tiny)
        changes.append((residual_change.div_(length), step_change.div_(length)))
        scores = step.clone()
        _project(residual.clone(), scores, changes)
    return scores - 2 * objective.errors(scores)


def _project(residual: Tensor, step: Tensor, changes: list[tuple[Tensor, Tensor]]) -> None:
    """Remove from `residual`, in place, its part along each kept change, and from `step` what goes with it."""
    for direction, effect in changes:
        along = (residual * direction).sum((1, 2), keepdim=True)
        residual.addcmul_(along, direction, value=-1)
        step.addcmul_(along, effect, value=-1)


def _product(left: Tensor, factors: tuple[Tensor, ...]) -> Tensor:
    for factor in factors:
        left = left @ factor
    return left
