"""Optimal transport between query images and classes by Sinkhorn's algorithm, for a batch of tasks."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

_TOLERANCE = 1e-6  # of the sum of a row, which is 1
_MOST_ROUNDS = 1000
_NOTEWORTHY = 1e-4  # that is missing after so many rounds


def transported(costs: Tensor, *, sharpness: float, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The plan P (B, T, N) of least cost and high entropy that gives every image a whole, and every class T / N images.

    That is the minimum of SUM P * costs - entropy(P) / sharpness with rows that sum to 1 and columns that sum to T / N
    (Cuturi 2013; Hu et al. 2021, Algorithm 1). Rows and columns are scaled in turn, until the sums of the rows are
    within 1e-6; if a task is not within 1e-4 after 1000 rounds, a warning says by how much.

    Parameters
    ----------
    costs
        (B, T, N), finite.
    sharpness
        lambda, above 0.
    start
        The factors (B, 1, N) of the columns to start from, such as those of costs that differ little; None for ones.

    Returns
    -------
    tuple
        The plan, and the factors of its columns.
    """
    tasks, images, ways = costs.shape
    exponents = -sharpness * costs.double()
    # the scaling of the rows takes this out again; every row then has an entry of 1, whatever the sharpness
    kernel = (exponents - exponents.amax(-1, keepdim=True)).exp()
    tiny = torch.finfo(torch.float64).tiny
    plan = torch.empty_like(kernel)
    active = torch.arange(tasks, device=costs.device)
    columns = kernel.new_ones(tasks, 1, ways) if start is None else start
    factors = columns.clone()
    error = kernel.new_full((tasks,), torch.inf)
    for _ in range(_MOST_ROUNDS):
        rows = 1 / (kernel * columns).sum(-1, keepdim=True).clamp(min=tiny)
        columns = images / ways / (kernel * rows).sum(1, keepdim=True).clamp(min=tiny)
        sums = (kernel * rows * columns).sum(-1)
        error = (sums - 1).abs().amax(1)
        done = error <= _TOLERANCE
        if done.any():
            plan[active[done]], factors[active[done]] = (kernel * rows * columns)[done], columns[done]
            active, kernel, columns, rows = (part[~done] for part in (active, kernel, columns, rows))
        if not len(active):
            return plan.to(costs.dtype), factors
    plan[active], factors[active] = kernel * rows * columns, columns
    far = error > _NOTEWORTHY
    if far.any():
        warnings.warn(
            f"optimal transport stopped short of {_TOLERANCE:g} on {int(far.sum())} of {tasks} tasks after "
            f"{_MOST_ROUNDS} rounds; the sum of a row is off by up to {float(error.max()):.1e}",
            RuntimeWarning,
            stacklevel=2,
        )
    return plan.to(costs.dtype), factors
