"""Linear systems that are known only by their products with vectors (Hestenes and Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor], vector: Tensor, *, steps: int, damping: float = 0.0
) -> Tensor:
    """About (A + damping I)^-1 v for each of B symmetric matrices A, (B, P): the best in the Krylov space of `steps`.

    A task stops for good when the curvature along its direction is not positive: at the point that it has reached, or,
    in the very first step, at v itself, as truncated Newton methods do.

    Parameters
    ----------
    operator
        Takes vectors (B, P) and returns A times them, (B, P), for each task with its own A.
    vector
        v, (B, P).
    steps
        How often `operator` is called.
    damping
        Multiple of the identity that is added to A.
    """
    solution, residual, direction = torch.zeros_like(vector), vector, vector
    squared = _inner(residual, residual)
    for step in range(steps):
        product = operator(direction) + damping * direction
        curvature = _inner(direction, product)
        running = curvature > 0  # the direction of a task that has stopped is zero
        if step == 0:
            solution = torch.where(running, solution, vector)
        length = torch.where(running, squared / curvature, 0)
        solution = solution + length * direction
        residual = residual - length * product
        previous, squared = squared, _inner(residual, residual)
        direction = torch.where(running, residual + squared / previous * direction, 0)
    return solution


def _inner(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1, keepdim=True)
