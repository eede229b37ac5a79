"""Optimal transport between query images and classes by Sinkhorn's algorithm, for a batch of tasks."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from kshot.solvers.products import product

_TOLERANCE = 1e-6  # of the sum of a row, which is 1
_MOST_ROUNDS = 1000
_NOTEWORTHY = 1e-4  # that is missing after so many rounds


def transported(costs: Tensor, *, sharpness: float, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The plan P (B, N, T) of least cost and high entropy that gives every image a whole, and every class T / N images.

    That is the minimum of SUM P * costs - entropy(P) / sharpness with images that sum to 1 and classes that sum to
    T / N (Cuturi 2013; Hu et al. 2021, Algorithm 1). Images and classes are scaled in turn, until the sums of the
    images are within 1e-6; if a task is not within 1e-4 after 1000 rounds, a warning says by how much.

    Parameters
    ----------
    costs
        (B, N, T), finite.
    sharpness
        lambda, above 0.
    start
        The factors (B, N, 1) of the classes to start from, such as those of costs that differ little; None for ones.

    Returns
    -------
    tuple
        The plan, and the factors of its classes.
    """
    tasks, ways, images = costs.shape
    exponents = -sharpness * costs.double()
    # the scaling of the images takes this out again; every image then has an entry of 1, whatever the sharpness
    kernel = exponents.sub_(exponents.amax(1, keepdim=True)).exp_()
    tiny = torch.finfo(torch.float64).tiny
    plan = torch.empty_like(kernel)
    places = torch.arange(tasks, device=costs.device)
    classes = kernel.new_ones(tasks, ways, 1) if start is None else start
    factors = classes.clone()
    error = kernel.new_full((tasks,), torch.inf)
    scale = (kernel * classes).sum(1, keepdim=True)
    for _ in range(_MOST_ROUNDS):
        rows = scale.clamp(min=tiny).reciprocal()
        classes = (images / ways) / product(kernel, rows.mT).clamp_(min=tiny)
        scale = product(classes.mT, kernel)
        error = (scale * rows).sub_(1).abs_().amax((1, 2))
        done = error <= _TOLERANCE
        if done.any():
            plan[places[done]], factors[places[done]] = (kernel * rows * classes)[done], classes[done]
            left = ~done
            places, kernel, classes, rows, scale = (part[left] for part in (places, kernel, classes, rows, scale))
        if not len(places):
            return plan.to(costs.dtype), factors
    plan[places], factors[places] = kernel * rows * classes, classes
    far = error > _NOTEWORTHY
    if far.any():
        warnings.warn(
            f"optimal transport stopped short of {_TOLERANCE:g} on {int(far.sum())} of {tasks} tasks after "
            f"{_MOST_ROUNDS} rounds; the sum of a row is off by up to {float(error.max()):.1e}",
            RuntimeWarning,
            stacklevel=2,
        )
    return plan.to(costs.dtype), factors
