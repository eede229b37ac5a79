"""What wide networks predict after multi-task learning and after ANIL, from their kernels alone.

These are the formulas of W21, section 4 (Lemma 1, eqs. 14-18).

A kernel is a function of points (..., n, d) and (..., m, d) that returns `Kernels`, for instance
``functools.partial(kernels, depth=10)`` or ``functools.partial(empirical_kernels, model)``. Time is learning rate times
steps of gradient descent, in the limit of small rates: lambda tau for the inner loop, lambda t for the adaptation of a
head. Everything is computed in float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError
from kshot.theory.infinite_width import Kernels
from kshot.theory.tasks import RegressionTasks

Kernel = Callable[[Tensor, Tensor], Kernels]
_CONDITION_BOUND = 1e12  # a solution has four digits left


class ConditionWarning(UserWarning):
    """A system was solved whose condition number leaves fewer than four digits of float64."""


class KernelPrediction(NamedTuple):
    """Predictions for query points, and how far to trust them.

    Attributes
    ----------
    values
        (B, q), or (B, q, k) for vector targets.
    condition
        The largest condition number (2-norm) among the systems that were solved.
    """

    values: Tensor
    condition: float


def adapt_head(
    kernel: Kernel, *, query: Tensor, support: Tensor, targets: Tensor, time: float = math.inf
) -> KernelPrediction:
    """Predictions of a linear head that starts at zero and is trained on a support set for `time` (W21's G_t).

        G_t(X, X', Y') = K(X, X') K(X', X')^-1 (I - exp(-t K(X', X'))) Y',  K the NNGP kernel

    Parameters
    ----------
    kernel
        Kernels of the network that the head belongs to.
    query
        Points (..., q, d) to predict; leading shapes are tasks.
    support
        Support sets (..., s, d).
    targets
        Targets of the support sets, (..., s), or (..., s, k) for vectors.
    time
        Learning rate times steps; `math.inf` for the minimum of the loss.

    Raises
    ------
    DataError
        If K(X', X') is singular and `time` is infinite, or shapes do not fit.
    ConfigError
        For a negative time.

    Warns
    -----
    ConditionWarning
        If a condition number is above 1e12.
    """
    _check_time(time=time)
    columns, scalar = _columns(support, targets, "support")
    weights, condition = _trained(kernel(support, support).nngp.double(), columns, time, "a support set")
    adapted = kernel(query, support).nngp.double() @ weights
    return KernelPrediction(adapted[..., 0] if scalar else adapted, condition)


def predict_mtl(
    kernel: Kernel, tasks: RegressionTasks, *, time: float = 0.0, training_time: float = math.inf
) -> KernelPrediction:
    """F_MTL: a network trained with one head per task (W21, eq. 2), then a new head adapted for `time` (eqs. 6-7).

        F_MTL = G_t + Phi'_MTL Phi_MTL^-1 Y,  Phi_MTL[i, j] = T(X_i, X_j) - [i != j] K(X_i, X_j)

    Parameters
    ----------
    kernel
        Kernels of the network.
    tasks
        Training tasks, and the test tasks whose query points are predicted.
    time
        Learning rate times steps of the test task's head; 0 leaves the head that all tasks started from.
    training_time
        Learning rate times steps of training; infinite for convergence, as in the formula. After a finite time
        ``Phi^-1 (I - exp(-training_time Phi))`` takes the place of ``Phi^-1``.

    Raises
    ------
    DataError
        If a system is singular, or shapes do not fit.
    ConfigError
        As for `adapt_head`.

    Warns
    -----
    ConditionWarning
        As for `adapt_head`.
    """
    _check_time(training_time=training_time)
    points, columns, task = _joined(tasks)
    nngp, ntk = kernel(points, points)
    system = ntk.double() - nngp.double() * (task[:, None] != task)
    weights, condition = _trained(system, columns, training_time, "the training tasks")

    def trained(points_at: Tensor) -> Tensor:
        nngp_at, ntk_at = _kernel_to(kernel, points_at, points)
        return (ntk_at - nngp_at) @ weights

    return _adapted(kernel, trained, tasks, time, condition)


def predict_anil(
    kernel: Kernel,
    tasks: RegressionTasks,
    *,
    time: float = 0.0,
    inner_time: float = 0.0,
    training_time: float = math.inf,
    inner_steps: int | None = None,
) -> KernelPrediction:
    """F_ANIL: a network meta-trained by ANIL (W21, eqs. 3-4), then its head adapted for `time` (eqs. 8-9).

        F_ANIL = G_t + Phi'_ANIL Phi_ANIL^-1 (Y - G_tau),  Phi_ANIL[i, j] = exp(-tau K_i) T(X_i, X_j) exp(-tau K_j)

    It is computed as written here, though the exponentials cancel: ``Y - G_tau = exp(-tau K) Y``.

    Parameters
    ----------
    kernel, tasks, time
        As for `predict_mtl`.
    inner_time
        Learning rate times steps of the inner loop, lambda tau.
    training_time
        Learning rate times steps of training; infinite for convergence, as in the formula.
    inner_steps
        Number of steps of the inner loop, for which ``(I - inner_time / inner_steps K)^inner_steps`` takes the place of
        the exponential; None for the limit of small steps, as in the paper.

    Raises
    ------
    DataError, ConfigError
        As for `predict_mtl`; a ConfigError for fewer than one inner step, too.

    Warns
    -----
    ConditionWarning
        As for `predict_mtl`.
    """
    _check_time(inner_time=inner_time, training_time=training_time)
    if inner_steps is not None and inner_steps < 1:
        raise ConfigError(
            f"inner_steps is {inner_steps}, but an inner loop has at least one step; None takes the limit"
        )
    points, columns, task = _joined(tasks)
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

    return _adapted(kernel, trained, tasks, time, condition)


def _adapted(
    kernel: Kernel, trained: Callable[[Tensor], Tensor], tasks: RegressionTasks, time: float, condition: float
) -> KernelPrediction:
    """f(X) + G_t(X, X', Y' - f(X')) with the trained network f, which is what the formulas of both predictors say."""
    _check_time(time=time)
    wanted, scalar = _columns(tasks.support, tasks.support_targets, "support")
    values = trained(tasks.query)
    if values.shape[-1] != wanted.shape[-1]:
        raise DataError(
            f"training targets have {values.shape[-1]} numbers per point, support targets {wanted.shape[-1]}"
        )
    if time > 0:
        missing = wanted - trained(tasks.support)
        correction = adapt_head(kernel, query=tasks.query, support=tasks.support, targets=missing, time=time)
        values, condition = values + correction.values, max(condition, correction.condition)
    return KernelPrediction(values[..., 0] if scalar else values, condition)


def _kernel_to(kernel: Kernel, points_at: Tensor, points: Tensor) -> Kernels:
    """Kernels (B, q, M) between the points of each test task and all training points."""
    nngp, ntk = kernel(points_at.flatten(0, -2), points)
    return Kernels(*(part.double().unflatten(0, points_at.shape[:-1]) for part in (nngp, ntk)))


def _joined(tasks: RegressionTasks) -> tuple[Tensor, Tensor, Tensor]:
    """All training points (M, d), their targets (M, k), and the number of the task of each."""
    inputs, targets = tasks.inputs, tasks.targets
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise DataError(
            f"there are inputs of {len(inputs)} tasks and targets of {len(targets)}; give both for at least one"
        )
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
    # the gain of an eigenvalue of zero is its limit, `time`: nothing is divided by zero
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
            f"against {float(largest.max()):.1e}; leave out equal points, or take a finite or a shorter time"
        )
    condition = float((largest / least).max())
    _warn(condition, name)
    return torch.cholesky_solve(right, factor), condition


def _warn(condition: float, name: str) -> None:
    """ConditionWarning if the condition number leaves few digits."""
    if condition > _CONDITION_BOUND:
        message = f"the system of {name} has condition number {condition:.1e}, above {_CONDITION_BOUND:.0e}: "
        warnings.warn(f"{message}predictions keep few digits", ConditionWarning, stacklevel=3)


def _check_time(**times: float) -> None:
    """ConfigError unless every time is at least 0."""
    for name, time in times.items():
        if not time >= 0:
            raise ConfigError(f"{name} is {time}, but a time is 0 or longer")
