"""Crammer and Singer's hinge loss with R = |w|^2 / 2, the inner problem of MetaOptNet (W21, Table 2).

The loss has kinks, so that no Newton's method finds the optimum: it is found in the dual by accelerated projected
gradients, and its derivatives come from the optimality conditions on the coefficients that are not at their bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from kshot.errors import DivergenceError
from kshot.theory.last_layer import Loss, Regularizer

_STEPS = 100_000
_PRECISION = 1e-14  # a step that moves the coefficients less, relative to C, is the last


def summed_hinge(c: float) -> Loss:
    """C * SUM over images of max over classes of (score + 1 - score of the own class, without the 1 for itself)."""

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        own = one_hot(labels, scores.shape[-1]).to(scores.dtype)
        return c * ((scores + 1 - own).amax(-1) - (scores * own).sum(-1)).sum(-1)

    return loss


@dataclass(frozen=True)
class Margin(Regularizer):
    """R = |w|^2 / 2 next to `summed_hinge` of the same C on linear scores.

    Attributes
    ----------
    features
        Support features (B, S, D), float64, linearly independent.
    labels
        Their classes, (B, S).
    c
        C of the hinge loss.
    """

    features: Tensor
    labels: Tensor
    c: float

    def argmin(self, losses: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """The optimal heads (B, N, D); the loss is the hinge whatever `losses` says, and the start has no part in it.

        Raises
        ------
        DivergenceError
            If the projected gradients do not arrive.
        """
        return torch.stack(
            [self._head(features, labels, start.shape[1]) for features, labels in zip(self.features, self.labels)]
        )

    def _head(self, features: Tensor, labels: Tensor, ways: int) -> Tensor:
        kernel, own = features @ features.T, one_hot(labels, ways).to(features.dtype)
        bound = self.c * own
        with torch.no_grad():
            free = bound - _dual_optimum(kernel, own, bound) > 1e-9 * self.c
        return _coefficients(kernel, own, bound, free).T @ features


def _dual_optimum(kernel: Tensor, own: Tensor, bound: Tensor) -> Tensor:
    """a (S, N) that minimises 1/2 SUM_c a_c' K a_c - SUM a * own with rows that sum to 0 and a <= bound."""
    eigenvalues = torch.linalg.eigvalsh(kernel)
    rate, ratio = 1 / eigenvalues[-1], (eigenvalues[0] / eigenvalues[-1]).clamp_min(0).sqrt()
    momentum = (1 - ratio) / (1 + ratio)
    before = ahead = torch.zeros_like(bound)
    for _ in range(_STEPS):
        after = _projected(ahead - rate * (kernel @ ahead - own), bound)
        if (after - ahead).abs().max() <= _PRECISION * bound.max():
            return after
        ahead = after + momentum * (after - before)
        before = after
    raise DivergenceError(f"projected gradients are not at the optimum of the margin after {_STEPS} steps")


def _projected(point: Tensor, bound: Tensor) -> Tensor:
    """The nearest coefficients (S, N) whose rows sum to 0 and do not exceed the bound: min(point - t, bound)."""
    # the k classes of least point - bound are below the bound for some k; t makes the sum zero
    gap, order = (point - bound).sort(-1)
    below, at_bound = point.gather(-1, order), bound.gather(-1, order)
    counts = torch.arange(1, point.shape[-1] + 1, dtype=point.dtype)
    rest = at_bound.sum(-1, keepdim=True) - at_bound.cumsum(-1)
    shift = (below.cumsum(-1) + rest) / counts
    upper = torch.cat([gap[:, 1:], torch.full_like(gap[:, :1], torch.inf)], -1)
    chosen = ((shift > gap) & (shift <= upper)).double().argmax(-1, keepdim=True)
    return torch.minimum(point - shift.gather(-1, chosen), bound)


def _coefficients(kernel: Tensor, own: Tensor, bound: Tensor, free: Tensor) -> Tensor:
    """The coefficients (S, N) by the optimality conditions, given which are not at their bound; differentiable."""
    images, ways = bound.shape
    quadratic = torch.kron(kernel, torch.eye(ways, dtype=kernel.dtype))
    sums = torch.kron(torch.eye(images, dtype=kernel.dtype), torch.ones(1, ways, dtype=kernel.dtype))
    inside, outside = free.flatten().nonzero()[:, 0], (~free).flatten().nonzero()[:, 0]
    fixed = bound.flatten()[outside]
    conditions = sums[:, inside]
    system = torch.cat(
        [
            torch.cat([quadratic[inside][:, inside], conditions.T], 1),
            torch.cat([conditions, kernel.new_zeros(images, images)], 1),
        ]
    )
    right = torch.cat([own.flatten()[inside] - quadratic[inside][:, outside] @ fixed, -sums[:, outside] @ fixed])
    solution = torch.linalg.solve(system, right)[: len(inside)]
    return bound.flatten().index_put((inside,), solution).view(images, ways)
