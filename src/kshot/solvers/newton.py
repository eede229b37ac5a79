"""The sure stage of logistic regression: Newton's method by conjugate gradients, for any features and any C.

It works in the principal coordinates of the support features, of which there are min(S, D): with V (S, r) the
coordinates, V'V diagonal, a head is a matrix (N, r) and a bias (N). There the quadratic bound of `anderson` has the
diagonal Hessian 1 + C/2 V'V: up to the slack of the bound an exact preconditioner, at no cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kshot.solvers.objective import SupportObjective

_NEWTON_STEPS = 100
_CONJUGATE_GRADIENT_STEPS = 500
_HALVINGS = 40
# A rise of the objective by no more than this fraction is rounding, and must not shorten a Newton step.
_ROUNDING = 1e-13


def newton(objective: SupportObjective, centred: Tensor, *, tol: float) -> tuple[Tensor, Tensor]:
    """Scores (B, N, S) and residuals (B,) from centred features (B, S, D), float64.

    A task leaves the batch once its residual is within `tol`; only rounding can keep it above.
    """
    coordinates, preconditioner = _principal(centred, objective.c)
    scores = torch.zeros_like(objective.targets)
    residual = torch.full_like(objective.radius, torch.inf)
    active, current = torch.arange(len(residual), device=residual.device), scores.clone()
    head = scores.new_zeros(*scores.shape[:2], coordinates.shape[2])
    for _ in range(_NEWTON_STEPS):
        errors = objective.errors(current)
        gradient = _pull_back(head, objective.c * errors, coordinates)
        left = objective.residual(gradient[..., :-1].square().sum((1, 2)), errors)
        scores[active], residual[active] = current, left
        remaining = (~(left <= tol)).nonzero().squeeze(1)
        if len(remaining) == 0:
            break
        if len(remaining) < len(left):
            active, objective = active[remaining], objective.select(remaining)
            coordinates, preconditioner = coordinates[remaining], preconditioner[remaining]
            head, current, gradient, errors = (part[remaining] for part in (head, current, gradient, errors))
        direction = _newton_direction(objective, coordinates, preconditioner, gradient, errors)
        head, current = _line_search(objective, head, current, direction, direction @ coordinates.mT, gradient)
    return scores, residual


def _principal(centred: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Coordinates (B, S, r+1), the last of them 1 for the bias, and the bound's diagonal Hessian (B, 1, r+1)."""
    tasks, support, dimension = centred.shape
    if dimension <= support:
        values, vectors = torch.linalg.eigh(centred.mT @ centred)
        coordinates, values = centred @ vectors, values.clamp(min=0)
    else:
        values, vectors = torch.linalg.eigh(centred @ centred.mT)
        values = values.clamp(min=0)
        coordinates = vectors * values.sqrt().unsqueeze(1)
    ones = values.new_ones(tasks, 1)
    diagonal = torch.cat([1 + c / 2 * values, c / 2 * support * ones], 1)
    return torch.cat([coordinates, ones.unsqueeze(1).expand(-1, support, -1)], 2), diagonal.unsqueeze(1)


def _pull_back(head: Tensor, by_scores: Tensor, coordinates: Tensor) -> Tensor:
    """The head itself (the penalty's part, none for the bias) plus what a derivative by scores (B, N, S) gives."""
    total = by_scores @ coordinates
    total[..., :-1] += head[..., :-1]
    return total


def _newton_direction(
    objective: SupportObjective, coordinates: Tensor, preconditioner: Tensor, gradient: Tensor, errors: Tensor
) -> Tensor:
    """Solve Hessian * direction = -gradient by preconditioned conjugate gradients, (B, N, r+1)."""
    probabilities = errors + objective.targets
    residual, direction = -gradient, torch.zeros_like(gradient)
    step = residual / preconditioner
    squared = _inner(residual, step)
    # Loose far from the optimum and tighter near it: superlinear convergence at the least cost.
    enough = (0.01 * squared).clamp(1e-8, 1e-2) * squared
    for _ in range(_CONJUGATE_GRADIENT_STEPS):
        weighted = probabilities * (step @ coordinates.mT)
        weighted = weighted - probabilities * weighted.sum(1, keepdim=True)
        curved = _pull_back(step, objective.c * weighted, coordinates)
        curvature = _inner(step, curved)
        running = (squared > enough) & (curvature > 0)
        if not running.any():
            break
        length = torch.where(running, squared / curvature, 0)
        direction.addcmul_(length, step)
        residual.addcmul_(length, curved, value=-1)
        preconditioned = residual / preconditioner
        previous, squared = squared, torch.where(running, _inner(residual, preconditioned), squared)
        step = preconditioned + squared / previous * step
    return direction


def _line_search(
    objective: SupportObjective, head: Tensor, scores: Tensor, direction: Tensor, change: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Head and scores after the longest of the steps 1, 1/2, 1/4, ... on which the objective falls (Armijo 1966)."""

    def value(head: Tensor, scores: Tensor) -> Tensor:
        return head[..., :-1].square().sum((1, 2), keepdim=True) / 2 + objective.cross_entropy(scores)[:, None, None]

    start, slope = value(head, scores), _inner(gradient, direction)
    length = torch.ones_like(start)
    for _ in range(_HALVINGS):
        reached = value(head + length * direction, scores + length * change)
        too_long = ~(reached <= start + 1e-4 * length * slope + _ROUNDING * start)
        if not too_long.any():
            break
        length = torch.where(too_long, length / 2, length)
    return head + length * direction, scores + length * change


def _inner(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum((1, 2), keepdim=True)
