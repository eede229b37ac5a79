"""Logistic regression by Newton's method on the whole Hessian: slow, and exact to rounding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def logistic_regression(features: Tensor, labels: Tensor, ways: int, *, c: float) -> tuple[Tensor, Tensor]:
    """Weight (N, D) and bias (N,) that minimise 1/2 |W|^2 + c * sum of cross-entropies of features (S, D)."""
    features, size = features.detach(), features.shape[1]

    def value(flat: Tensor) -> Tensor:
        weight, bias = flat[: ways * size].view(ways, size), flat[ways * size :]
        errors = F.cross_entropy(features @ weight.T + bias, labels, reduction="sum")
        # one bias too many: a constant added to all of them changes nothing, so their sum may be pulled to zero
        return weight.square().sum() / 2 + c * errors + bias.sum().square() / 2

    flat = torch.zeros(ways * (size + 1), dtype=features.dtype)
    for _ in range(50):
        gradient = torch.autograd.functional.jacobian(value, flat)
        if gradient.abs().max() < 1e-12:
            break
        step = torch.linalg.solve(torch.autograd.functional.hessian(value, flat), gradient)
        length = 1.0
        while value(flat - length * step) > value(flat) + 1e-12:
            length /= 2
        flat = flat - length * step
    return flat[: ways * size].view(ways, size), flat[ways * size :]
