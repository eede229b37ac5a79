"""What wide networks predict after multi-task learning and after ANIL, from their kernels alone (W21, Lemma 1).

A kernel is a function of points (..., n, d) and (..., m, d) that returns `Kernels`, for instance
``functools.partial(kernels, depth=10)`` or ``functools.partial(empirical_kernels, model)``. Time is learning rate times
steps of gradient descent, in the limit of small rates: lambda tau for the inner loop, lambda t for the adaptation of a
head. All computation is in float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError
from kshot.theory.kernels import Kernels

Kernel = Callable[[Tensor, Tensor], Kernels]
CONDITION_BOUND = 1e12  # a solution has four digits left


class ConditionWarning(UserWarning):
    """A system was solved whose condition number leaves fewer than four digits of float64."""


class Prediction(NamedTuple):
    """Predictions for query points, and how far to trust them.

    values: (B, q), or (B, q, k) for vector targets.
    condition: the largest condition number (of the 2-norm) among the systems that were solved.
    """

    values: Tensor
    condition: float


def adapt_head(kernel: Kernel, query: Tensor, support: Tensor, targets: Tensor, time: float = math.inf) -> Prediction:
    """Predictions of a linear head that starts at zero and is trained on a support set for `time` (W21's G).

        G_t(X, X', Y') = K(X, X') K(X', X')^-1 (I - exp(-t K(X', X'))) Y',  K the NNGP kernel

    query: (..., q, d); support: (..., s, d); targets: (..., s), or (..., s, k) for vectors; leading shapes are tasks.
    time: learning rate times steps, `math.inf` for the minimum of the loss.

    Warns by ConditionWarning above 1e12; raises DataError where K(X', X') is singular and `time` is infinite, and for
    shapes that do not fit, ConfigError for a negative time.
    """
    _check_time(time=time)
    columns, scalar = _columns(support, targets, "support")
    weights, condition = _trained(kernel(support, support).nngp.double(), columns, time, "a support set")
    adapted = kernel(query, support).nngp.double() @ weights
    return Prediction(adapted[..., 0] if scalar else adapted, condition)


def predict_mtl(
    kernel: Kernel,
    inputs: Tensor | Sequence[Tensor],
    targets: Tensor | Sequence[Tensor],
    support: Tensor,
    support_targets: Tensor,
    query: Tensor,
    time: float = 0.0,
    training_time: float = math.inf,
) -> Prediction:
    """F_MTL: a network trained with a head for each task, then a new head adapted for `time`.

        F_MTL = G_t + Phi'_MTL Phi_MTL^-1 Y,  Phi_MTL[i, j] = T(X_i, X_j) - [i != j] K(X_i, X_j)

    inputs: training tasks (N, n, d), or a list of (n_i, d) that may differ in length; targets: (N, n), or (N, n, k), or
        a list likewise.
    support: test tasks (B, s, d); support_targets: (B, s) or (B, s, k); query: (B, q, d).
    time: learning rate times steps of the test task's head, 0 for the head that all tasks started from.
    training_time: learning rate times steps of training; the formula is that of an infinite one, convergence. After a
        finite one ``Phi^-1`` is ``Phi^-1 (I - exp(-training_time Phi))``.

    Warns by ConditionWarning above 1e12; raises DataError where the system is singular, or for shapes that do not fit,
    ConfigError for a negative time.
    """
    _check_time(training_time=training_time)
    points, columns, task = _joined(inputs, targets)
    nngp, ntk = kernel(points, points)
    system = ntk.double() - nngp.double() * (task[:, None] != task)
    weights, condition = _trained(system, columns, training_time, "the training tasks")

    def trained(points_at: Tensor) -> Tensor:
        nngp_at, ntk_at = _kernel_to(kernel, points_at, points)
        return (ntk_at - nngp_at) @ weights

    return _adapted(kernel, trained, support, support_targets, query, time, condition)


def predict_anil(
    kernel: Kernel,
    inputs: Tensor | Sequence[Tensor],
    targets: Tensor | Sequence[Tensor],
    support: Tensor,
    support_targets: Tensor,
    query: Tensor,
    time: float = 0.0,
    inner_time: float = 0.0,
    training_time: float = math.inf,
    inner_steps: int | None = None,
) -> Prediction:
    """F_ANIL: a network meta-trained by ANIL, then its head adapted for `time`.

        F_ANIL = G_t + Phi'_ANIL Phi_ANIL^-1 (Y - G_tau),  Phi_ANIL[i, j] = exp(-tau K_i) T(X_i, X_j) exp(-tau K_j)

    It is computed as written here, though the exponentials cancel: ``Y - G_tau = exp(-tau K) Y``.

    inner_time: learning rate times steps of the inner loop, lambda tau.
    inner_steps: how many steps that are, with ``(I - inner_time / inner_steps K)^inner_steps`` for the exponentials;
        None for the limit of small steps, as in the paper.

    The rest as `predict_mtl`.
    """
    _check_time(inner_time=inner_time, training_time=training_time)
    if inner_steps is not None and inner_steps < 1:
        raise ConfigError(
            f"inner_steps is {inner_steps}, but an inner loop has one step at least; None takes the limit"
        )
    points, columns, task = _joined(inputs, targets)
    nngp, ntk = kernel(points, points)
    values, vectors = torch.linalg.eigh(nngp.double() * (task[:, None] == task))
    if inner_steps is None:
        decay = torch.exp(-inner_time * values)
    else:
        decay = (1 - inner_time / inner_steps * values) ** inner_steps
    left = vectors @ (decay[:, None] * vectors.mT)
    learnt = vectors @ ((1 - decay)[:, None] * (vectors.mT @ columns))
    solution, condition = _trained(left @ ntk.double() @ left, columns - learnt, training_time, "the training tasks")
    weights = left @ solution

    def trained(points_at: Tensor) -> Tensor:
        return _kernel_to(kernel, points_at, points).ntk @ weights

    return _adapted(kernel, trained, support, support_targets, query, time, condition)


def _adapted(
    kernel: Kernel,
    trained: Callable[[Tensor], Tensor],
    support: Tensor,
    support_targets: Tensor,
    query: Tensor,
    time: float,
    condition: float,
) -> Prediction:
    """f(X) + G_t(X, X', Y' - f(X')) with the trained network f, which is what the formulas of both predictors say."""
    _check_time(time=time)
    wanted, scalar = _columns(support, support_targets, "support")
    values = trained(query)
    if values.shape[-1] != wanted.shape[-1]:
        raise DataError(f"training targets have {values.shape[-1]} numbers a point, support targets {wanted.shape[-1]}")
    if time > 0:
        correction = adapt_head(kernel, query, support, wanted - trained(support), time)
        values, condition = values + correction.values, max(condition, correction.condition)
    return Prediction(values[..., 0] if scalar else values, condition)


def _kernel_to(kernel: Kernel, points_at: Tensor, points: Tensor) -> Kernels:
    """Kernels (B, q, M) between the points of each test task and all training points."""
    nngp, ntk = kernel(points_at.flatten(0, -2), points)
    return Kernels(*(part.double().unflatten(0, points_at.shape[:-1]) for part in (nngp, ntk)))


def _joined(inputs: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """All training points (M, d), their targets (M, k), and the number of the task of each."""
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise DataError(f"there are inputs of {len(inputs)} tasks and targets of {len(targets)}; one of each is needed")
    if len({points.shape[-1] for points in inputs}) > 1:
        raise DataError(f"training tasks differ in dimension: {sorted({points.shape[-1] for points in inputs})}")
    pairs = [_columns(points, wanted, f"training task {i}") for i, (points, wanted) in enumerate(zip(inputs, targets))]
    if len({columns.shape[-1] for columns, _ in pairs}) > 1:
        raise DataError("training tasks differ in how many numbers their targets have")
    task = torch.cat([torch.full((len(points),), i, device=points.device) for i, points in enumerate(inputs)])
    return torch.cat(list(inputs)).double(), torch.cat([columns for columns, _ in pairs]), task


def _columns(points: Tensor, targets: Tensor, name: str) -> tuple[Tensor, bool]:
    """Targets as (..., n, k) in float64, and whether they were scalars (..., n)."""
    scalar = targets.ndim == points.ndim - 1
    columns = targets[..., None] if scalar else targets
    if columns.shape[:-1] != points.shape[:-1]:
        raise DataError(f"{name}: targets {tuple(targets.shape)} do not fit points {tuple(points.shape)}")
    if not targets.isfinite().all():
        raise DataError(f"{name}: there are targets that are not finite")
    return columns.double(), scalar


def _trained(system: Tensor, right: Tensor, time: float, name: str) -> tuple[Tensor, float]:
    """``system^-1 (I - exp(-time system)) right`` for positive semi-definite systems, and its condition number."""
    if math.isinf(time):
        return _solved(system, right, name)
    values, vectors = torch.linalg.eigh(system)
    # there is a limit, `time`, where the system is singular: nothing is divided by zero
    growth = time * values.clamp_min(0)
    gain = time * torch.where(growth > 0, -torch.expm1(-growth) / growth.where(growth > 0, 1.0), 1.0)
    gains = gain.detach()
    condition = float((gains.amax(-1) / gains.amin(-1)).max()) if time > 0 else 1.0
    _warn(condition, name)
    return vectors @ (gain[..., None] * (vectors.mT @ right)), condition


def _solved(system: Tensor, right: Tensor, name: str) -> tuple[Tensor, float]:
    """``system^-1 right`` by Cholesky, and the largest condition number."""
    eigenvalues = torch.linalg.eigvalsh(system.detach())
    least, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    factor, failures = torch.linalg.cholesky_ex(system)
    if failures.any() or not (least > 0).all():
        raise DataError(
            f"the system of {name} is singular to working precision, its smallest eigenvalue {float(least.min()):.1e} "
            f"beside {float(largest.max()):.1e}; leave out equal points, or take a finite or a shorter time"
        )
    condition = float((largest / least).max())
    _warn(condition, name)
    return torch.cholesky_solve(right, factor), condition


def _warn(condition: float, name: str) -> None:
    if condition > CONDITION_BOUND:
        message = f"the system of {name} has condition number {condition:.1e}, above {CONDITION_BOUND:.0e}: "
        warnings.warn(f"{message}predictions keep few digits", ConditionWarning, stacklevel=3)


def _check_time(**times: float) -> None:
    for name, time in times.items():
        if not time >= 0:
            raise ConfigError(f"{name} is {time}, but a time is 0 or longer")
