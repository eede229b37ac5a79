"""Linear systems that are known by their products with vectors alone (Hestenes and Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor], vector: Tensor, steps: int, damping: float = 0.0
) -> Tensor:
    """About (A + damping I)^-1 v for each of B symmetric matrices A, (B, P): the best in the Krylov space of `steps`.

    operator: vectors (B, P) -> A times them (B, P), each task by its own A.
    vector: v, (B, P).

    A task stops for good where the curvature along its direction is not positive: at what it has reached, or, where
    that happens in the very first step, at v itself, as truncated Newton methods do.
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
