"""The support vector machine against a general QP solver, its conditions of optimality, and finite differences."""

from __future__ import annotations

import importlib

import clarabel
import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.errors import ConfigError, DataError
from kshot.solvers import svm

module = importlib.import_module("kshot.solvers.svm")


def task(counts: list[int], dimension: int, length: float = 1.0, tasks: int = 2) -> tuple[Tensor, Tensor]:
    """Support features (B, S, D), float64, of about this length, and labels (B, S) in mixed order."""
    generator = torch.Generator().manual_seed(sum(counts) + dimension)
    ordered = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = torch.stack([ordered[torch.randperm(len(ordered), generator=generator)] for _ in range(tasks)])
    centres = torch.randn(tasks, len(counts), dimension, generator=generator, dtype=torch.float64)
    chosen = centres[torch.arange(tasks)[:, None], labels]
    noise = torch.randn(chosen.shape, generator=generator, dtype=torch.float64)
    return length * torch.nn.functional.normalize((chosen + noise).relu() + 0.01, dim=-1), labels


def by_quadratic_program(
    features: NDArray, labels: NDArray, ways: int, c: float, diagonal_shift: float
) -> tuple[NDArray, NDArray]:
    """Coefficients (N, S) and weight (N, D) of one task by Clarabel, in units in which K has a diagonal of about 1."""
    count = len(labels)
    kernel = features @ features.T + diagonal_shift * np.eye(count)
    unit = kernel.diagonal().max()
    members = np.eye(ways)[labels].T.reshape(-1)
    quadratic = scipy.sparse.csc_matrix(scipy.sparse.triu(scipy.sparse.kron(scipy.sparse.eye(ways), kernel / unit)))
    sums = scipy.sparse.kron(np.ones((1, ways)), scipy.sparse.eye(count))
    constraints = scipy.sparse.csc_matrix(scipy.sparse.vstack([sums, scipy.sparse.eye(ways * count)]))
    bounds = np.concatenate([np.zeros(count), c * unit * members])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
    cones = [clarabel.ZeroConeT(count), clarabel.NonnegativeConeT(ways * count)]
    solution = clarabel.DefaultSolver(quadratic, -members, constraints, bounds, cones, settings).solve()
    coefficients = np.asarray(solution.x).reshape(ways, count) / unit
    return coefficients, coefficients @ features


CASES = [
    ([1, 1], 2, 1.0, 0.1),
    ([1] * 20, 64, 1.0, 0.1),
    ([5] * 5, 640, 1.0, 0.1),
    ([5] * 5, 640, 20.0, 0.1),
    ([5] * 5, 16_000, 30.0, 0.1),
    ([30, 30], 5, 1.0, 1.0),
    ([15] * 5, 16, 3.0, 0.1),
    ([3, 5, 11], 40, 5.0, 0.01),
    ([3, 1, 7], 2, 10.0, 10.0),
    ([5] * 20, 64, 3.0, 0.1),
    ([30] * 5, 64, 3.0, 0.1),
]


@pytest.mark.parametrize(("counts", "dimension", "length", "c"), CASES, ids=str)
@pytest.mark.parametrize("diagonal_shift", [1.0, 0.1])
def test_optimum_is_that_of_a_quadratic_program(counts, dimension, length, c, diagonal_shift) -> None:
    features, labels = task(counts, dimension, length)
    head = svm(features, labels, len(counts), c=c, diagonal_shift=diagonal_shift)
    assert not head.bias.any()
    for images, classes, weight in zip(features.numpy(), labels.numpy(), head.weight.numpy()):
        _, expected = by_quadratic_program(images, classes, len(counts), c, diagonal_shift)
        np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-8)


def coefficients(features: Tensor, labels: Tensor, ways: int, c: float, diagonal_shift: float) -> Tensor:
    """(B, N, S): the weight of each image is seen through a feature of its own, which the diagonal shift stands for."""
    own = diagonal_shift**0.5 * torch.eye(features.shape[1], dtype=features.dtype).expand(len(features), -1, -1)
    weight = svm(torch.cat([features, own], -1), labels, ways, c=c, diagonal_shift=0.0).weight
    return weight[..., features.shape[-1] :] / diagonal_shift**0.5


@pytest.mark.parametrize("kind", ["duplicates", "zeros", "contradictory", "long", "large C"])
@pytest.mark.parametrize("counts", [[1, 1], [5] * 5, [30] * 3, [2] * 20], ids=str)
def test_conditions_of_optimality_hold(counts: list[int], kind: str) -> None:
    """To rounding, which for long features and a large C is more than Clarabel's 1e-3 to 1e-5 could tell.

    Of the slack and the multiplier of a bound one is zero. Their product would tell less: where it is 1e-9, both may be
    3e-5.
    """
    ways, c, shift = len(counts), 1000.0 if kind == "large C" else 0.1, 1.0
    features, labels = task(counts, 24, 100.0 if kind == "long" else 1.0)
    if kind == "zeros":
        features[:, ::2] = 0
    elif kind != "long":
        features[:, 1] = features[:, 0]
    if kind == "duplicates" and min(counts) > 1:
        labels[:, 1] = labels[:, 0]
        labels[:, 2 : 2 + ways] = torch.arange(ways)
    found = coefficients(features, labels, ways, c, shift)
    kernel = features @ features.mT + shift * torch.eye(features.shape[1], dtype=torch.float64)
    members = torch.nn.functional.one_hot(labels, ways).mT.double()
    slacks = c * members - found
    assert slacks.min() > -1e-12
    assert found.sum(1).abs().max() < 1e-11
    pull = members - found @ kernel
    multipliers = pull - pull.amin(1, keepdim=True)
    assert torch.minimum(slacks, multipliers).abs().max() < 1e-11
    weight = svm(features, labels, ways, c=c, diagonal_shift=shift).weight
    torch.testing.assert_close(weight, found @ features, rtol=0, atol=1e-8)


def test_without_a_shift_the_hinge_losses_are_minimised() -> None:
    """The primal of the paper: strong duality, and no direction from the weight lowers the objective."""
    features, labels = task([4, 6, 5], 30, 2.0)
    c = 0.3

    def objective(weight: Tensor) -> Tensor:
        scores = features @ weight.mT
        own = scores.gather(2, labels.unsqueeze(-1))
        margins = scores - own + 1 - torch.nn.functional.one_hot(labels, 3)
        return 0.5 * weight.square().sum((1, 2)) + c * margins.amax(-1).sum(1)

    weight = svm(features, labels, 3, c=c, diagonal_shift=0.0).weight
    generator = torch.Generator().manual_seed(0)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(20):
            direction = size * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            assert (objective(weight + direction) > objective(weight)).all()
    alpha, _ = by_quadratic_program(features[0].numpy(), labels[0].numpy(), 3, c, 0.0)
    dual = (alpha * np.eye(3)[labels[0]].T).sum() - 0.5 * np.square(alpha @ features[0].numpy()).sum()
    assert objective(weight)[0].item() == pytest.approx(dual, abs=1e-9)


@pytest.mark.parametrize(
    ("counts", "dimension", "length", "c"),
    [([1, 1], 2, 1.0, 0.1), ([3, 2], 4, 3.0, 0.1), ([2, 3, 2], 5, 6.0, 0.2), ([1] * 4, 12, 10.0, 0.1)],
    ids=str,
)
@pytest.mark.parametrize("diagonal_shift", [1.0, 0.3])
def test_gradients_equal_finite_differences(counts, dimension, length, c, diagonal_shift) -> None:
    features, labels = task(counts, dimension, length)

    def weight(features: Tensor) -> Tensor:
        return svm(features, labels, len(counts), c=c, diagonal_shift=diagonal_shift).weight

    assert torch.autograd.gradcheck(weight, features.requires_grad_(), atol=1e-6)


def test_gradients_of_duplicate_and_zero_features_equal_finite_differences() -> None:
    features, labels = task([2, 2, 3], 6, 4.0)
    features[:, 1] = features[:, 0]
    features[:, 2] = 0
    assert torch.autograd.gradcheck(lambda x: svm(x, labels, 3).weight, features.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize(
    ("counts", "dimension", "length"),
    [([5] * 5, 640, 1.0), ([1] * 5, 64, 20.0), ([5] * 5, 640, 20.0), ([15] * 5, 640, 10.0), ([30] * 2, 5, 1.0)],
    ids=str,
)
def test_float32_is_close_to_float64(counts: list[int], dimension: int, length: float) -> None:
    """The gradient not in every task: some have a coefficient that rounding takes from its bound or to it."""
    features, labels = task(counts, dimension, length, tasks=16)
    factors = torch.randn(16, len(counts), dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    results = []
    for dtype in (torch.float32, torch.float64):
        given = features.float().to(dtype).requires_grad_()
        weight = svm(given, labels, len(counts)).weight
        assert weight.dtype == dtype
        (weight * factors.to(dtype)).sum().backward()
        results.append((weight.detach().double(), given.grad.double()))
    (weights, gradients), (exact_weights, exact_gradients) = results
    assert (distances(weights, exact_weights) < 1e-4).all()
    assert (distances(gradients, exact_gradients) < 1e-3).sum() >= 12


@pytest.mark.parametrize(("counts", "dimension", "length"), [([5] * 5, 640, 1.0), ([1] * 5, 64, 20.0)], ids=str)
def test_float32_gradients_are_close_in_every_task_away_from_bounds(counts: list[int], dimension: int, length: float):
    features, labels = task(counts, dimension, length)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        given = features.to(dtype).requires_grad_()
        svm(given, labels, len(counts)).weight.square().sum().backward()
        gradients.append(given.grad.double())
    assert (distances(*gradients) < 1e-3).all()


def distances(found: Tensor, exact: Tensor) -> Tensor:
    """(B,) of each task, relative to the largest entry."""
    return (found - exact).abs().amax((1, 2)) / exact.abs().amax((1, 2))


def test_long_float32_features_do_not_make_the_kernel_singular() -> None:
    """Beside a squared length of 1e7, the 1 on the diagonal is less than float32 can tell."""
    features, labels = task([15] * 5, 640, 3e3)
    features[:, 1] = features[:, 0]
    single = svm(features.float(), labels, 5).weight.double()
    double = svm(features.float().double(), labels, 5).weight
    assert (distances(single, double) < 1e-4).all()


def test_a_task_is_the_same_alone_and_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the batch is solved in parts, to keep the factors small."""
    features, labels = task([3, 2, 4], 6, 3.0, tasks=5)
    results = []
    for bytes_at_once in (1 << 25, 2 * 27 * 9 * 8):
        monkeypatch.setattr(module, "_FACTOR_BYTES", bytes_at_once)
        given = features.clone().requires_grad_()
        weight = svm(given, labels, 3).weight
        weight.sin().sum().backward()
        results.append((weight.detach(), given.grad))
    alone = features[2:3].clone().requires_grad_()
    weight = svm(alone, labels[2:3], 3).weight
    weight.sin().sum().backward()
    for whole, part, own in zip(*results, (weight.detach(), alone.grad)):
        torch.testing.assert_close(whole, part, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(whole[2:3], own, rtol=1e-10, atol=1e-13)


def test_a_solved_task_waits_for_the_others() -> None:
    """At a coarse tolerance another step would show."""
    features, labels = task([3, 2, 4], 6, 3.0, tasks=3)
    features[1] *= 20
    kernel, members = features @ features.mT + torch.eye(9), torch.nn.functional.one_hot(labels, 3).mT.double()
    together, _ = module._Dual(kernel, members, 0.1).minimise(1e-3)
    for number in range(3):
        alone, _ = module._Dual(kernel[number : number + 1], members[number : number + 1], 0.1).minimise(1e-3)
        torch.testing.assert_close(together[number], alone[0], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan"), float("inf")])
def test_c_that_is_not_positive_is_refused(c: float) -> None:
    with pytest.raises(ConfigError, match="the C of a support vector machine is"):
        svm(torch.ones(1, 2, 3), torch.tensor([[0, 1]]), 2, c=c)


@pytest.mark.parametrize("diagonal_shift", [-1.0, float("nan")])
def test_a_negative_shift_is_refused(diagonal_shift: float) -> None:
    with pytest.raises(ConfigError, match="diagonal_shift is"):
        svm(torch.ones(1, 2, 3), torch.tensor([[0, 1]]), 2, diagonal_shift=diagonal_shift)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["duplicates", "zeros", "too few dimensions", "overflow"])
def test_a_singular_kernel_is_named(kind: str, dtype: torch.dtype) -> None:
    features, labels = task([3, 3], 5 if kind == "too few dimensions" else 12)
    features = features.to(torch.float64 if kind == "overflow" else dtype)
    if kind == "duplicates":
        features[1, 4] = features[1, 0]
    elif kind == "zeros":
        features[1, 2] = 0
    elif kind == "overflow":
        features[1] *= 1e200
    which = 0 if kind == "too few dimensions" else 1
    with pytest.raises(DataError, match=f"the kernel of task {which} is singular to working precision"):
        svm(features, labels, 2, diagonal_shift=0.0)


def test_a_kernel_whose_factorisation_stops_at_a_large_negative_pivot_is_named() -> None:
    """Beside lengths of 1e10 a pivot of rounding has a square that looks sound."""
    for seed in range(10):
        features = 1e10 * torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        features[:, 1] = features[:, 0]
        with pytest.raises(DataError, match="the kernel of task 0 is singular"):
            svm(features, torch.tensor([[0, 0, 0, 1, 1, 1]]), 2)


def test_a_class_without_support_images_is_named() -> None:
    with pytest.raises(DataError, match="class 1 of task 0 has no support image"):
        svm(torch.ones(1, 2, 3), torch.tensor([[0, 0]]), 2)


def test_a_task_that_is_not_solved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_ITERATIONS", 2)
    with pytest.raises(DataError, match="task 0 is not solved after 2 steps"):
        svm(*task([3, 3], 5), ways=2)
