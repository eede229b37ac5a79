"""Gradients of the support vector machine and of ridge regression over all sizes, against central differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_solvers_svm import coefficients, task
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from kshot.solvers import ridge, svm

STEP = 1e-5  # of the length of each feature; rounding then makes some 1e-7 of a derivative, curvature less
LARGEST = pytest.param(30, 20, marks=pytest.mark.slow)
SIZES = pytest.mark.parametrize(("shots", "ways"), [(1, 2), (5, 2), (30, 2), (1, 20), (5, 20), LARGEST])
DIMENSIONS = pytest.mark.parametrize("dimension", [2, 640, 16_000])


def derivative_and_ends(
    weight: Callable[[Tensor], Tensor], features: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The derivative of a random product with the weight along a random way, and both ends of a step along this."""
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(features.shape, generator=generator, dtype=features.dtype)
    way = features.norm(dim=-1, keepdim=True) * normalize(way, dim=-1)
    given = features.clone().requires_grad_()
    found = weight(given)
    factors = torch.randn(found.shape, generator=generator, dtype=found.dtype)
    (gradient,) = torch.autograd.grad((found * factors).sum(), given)
    return (gradient * way).sum(), factors, (features + STEP * way, features - STEP * way)


@SIZES
@DIMENSIONS
def test_derivative_of_ridge_equals_a_finite_difference(shots: int, ways: int, dimension: int) -> None:
    features, labels = task([shots] * ways, dimension, 10.0, tasks=1)

    def weight(features: Tensor) -> Tensor:
        return ridge(features, labels, ways, l2=1.0).weight

    derivative, factors, (end, start) = derivative_and_ends(weight, features)
    difference = ((weight(end) - weight(start)) * factors).sum() / (2 * STEP)
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=0)


@SIZES
@DIMENSIONS
def test_derivative_of_the_svm_equals_a_finite_difference(shots: int, ways: int, dimension: int) -> None:
    """Between two points that have the same coefficients at their bounds, for elsewhere there may be no derivative."""
    features, labels = task([shots] * ways, dimension, 10.0, tasks=1)
    derivative, factors, ends = derivative_and_ends(lambda x: svm(x, labels, ways).weight, features)
    end, start = (coefficients(features, labels, ways, 0.1, 1.0) for features in ends)
    bounds = 0.1 * one_hot(labels, ways).mT
    assert torch.equal(bounds - end > 1e-9, bounds - start > 1e-9)
    difference = ((end @ ends[0] - start @ ends[1]) * factors).sum() / (2 * STEP)
    torch.testing.assert_close(derivative, difference, rtol=1e-6, atol=0)
