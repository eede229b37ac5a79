"""Conjugate gradients, proximal problems and mini-batches against scipy and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from kshot.solvers.conjugate_gradient import conjugate_gradient
from kshot.solvers.minibatches import draw_minibatches
from kshot.solvers.proximal import proximal


def systems(tasks: int, size: int) -> tuple[Tensor, Tensor]:
    """Symmetric positive definite matrices (B, P, P) and right sides (B, P)."""
    generator = torch.Generator().manual_seed(size)
    factors = torch.randn(tasks, size, size, generator=generator, dtype=torch.float64)
    matrices = torch.eye(size, dtype=torch.float64) + factors @ factors.mT / size
    return matrices, torch.randn(tasks, size, generator=generator, dtype=torch.float64)


def times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors.unsqueeze(2)).squeeze(2)


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize(("tasks", "size"), [(1, 1), (3, 5), (4, 40), (2, 200)])
def test_conjugate_gradients_solve_the_system(tasks: int, size: int, damping: float) -> None:
    matrices, right = systems(tasks, size)
    solution = conjugate_gradient(lambda vectors: times(matrices, vectors), right, steps=min(size, 60), damping=damping)
    damped = matrices + damping * torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(solution, torch.linalg.solve(damped, right), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_conjugate_gradients_take_the_steps_of_scipy(steps: int) -> None:
    matrices, right = systems(3, 30)
    solution = conjugate_gradient(lambda vectors: times(matrices, vectors), right, steps=steps)
    for matrix, vector, actual in zip(matrices.numpy(), right.numpy(), solution):
        expected, _ = scipy.sparse.linalg.cg(matrix, vector, maxiter=steps)
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_a_solved_task_waits_for_the_others() -> None:
    matrices, right = systems(3, 20)
    matrices[0], right[1] = 2 * torch.eye(20), 0
    solution = conjugate_gradient(lambda vectors: times(matrices, vectors), right, steps=40)
    torch.testing.assert_close(solution, torch.linalg.solve(matrices, right))
    assert not solution[1].any()


def test_negative_curvature_stops_a_task_at_what_it_has_reached() -> None:
    """At the right side where the first direction has it, at the first step where the second has; others go on."""
    matrices, right = systems(3, 2)
    matrices[0], right[0] = torch.diag(torch.tensor([-1.0, 0.1])), torch.tensor([2.0, 1.0])
    matrices[1], right[1] = torch.diag(torch.tensor([2.0, -1.0])), torch.tensor([1.0, 1.0])
    for steps in (2, 5):
        solution = conjugate_gradient(lambda vectors: times(matrices, vectors), right, steps=steps)
        assert solution[0].tolist() == [2, 1]
        assert solution[1].tolist() == [2, 2], "|v|^2 / v'Av = 2 times v"
        torch.testing.assert_close(solution[2], torch.linalg.solve(matrices[2], right[2]))


def test_proximal_adds_half_the_squared_distance_times_the_strength() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, centre = (
        {"a": torch.randn(3, 2, 4, generator=generator), "b": torch.randn(3, 5, generator=generator)} for _ in range(2)
    )
    losses = proximal(lambda weights, step: weights["b"].sum(1) + step, centre, l2=0.3)(weights, 7)
    for task in range(3):
        distance = sum((weights[name][task] - centre[name][task]).square().sum() for name in weights)
        torch.testing.assert_close(losses[task], weights["b"][task].sum() + 7 + 0.15 * distance)


KEYS = np.asarray([3, 2**64 - 1, 17], np.uint64)


@pytest.mark.parametrize(("images", "size", "steps"), [(25, 15, 50), (75, 10, 8), (6, 6, 3), (7, 2, 9), (5, 1, 1)])
def test_mini_batches_take_every_image_once_an_epoch(images: int, size: int, steps: int) -> None:
    plan = draw_minibatches(KEYS, images=images, size=size, steps=steps)
    assert plan.shape == (3, steps, size)
    for positions in plan.flatten(1):
        for epoch in positions.split(images):
            assert len(set(epoch.tolist())) == len(epoch)
        assert positions.min() >= 0
        assert positions.max() < images


def test_mini_batches_of_a_task_are_its_own() -> None:
    plan = draw_minibatches(KEYS, images=20, size=5, steps=12)
    assert torch.equal(draw_minibatches(KEYS[1:2], images=20, size=5, steps=12)[0], plan[1])
    assert torch.equal(draw_minibatches(KEYS, images=20, size=5, steps=3), plan[:, :3])
    assert not torch.equal(plan[0], plan[1])
    epochs = plan[0].view(3, 20)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_small_support_set_is_taken_as_a_whole() -> None:
    plan = draw_minibatches(KEYS, images=5, size=15, steps=4)
    assert plan.shape == (3, 4, 5)
    assert torch.equal(plan.sort(2).values, torch.arange(5).expand(3, 4, 5))
    assert draw_minibatches(KEYS, images=5, size=15, steps=0).shape == (3, 0, 5)


def test_every_order_of_the_images_is_as_likely() -> None:
    first = draw_minibatches(np.arange(6000, dtype=np.uint64), images=6, size=2, steps=1)[:, 0]
    counts = np.bincount((first[:, 0] * 6 + first[:, 1]).numpy(), minlength=36).reshape(6, 6)
    assert not np.diagonal(counts).any()
    pairs = counts[~np.eye(6, dtype=bool)]
    assert ((pairs - 200) ** 2 / 200).sum() < 60, "chi-squared with 29 degrees of freedom: 0.1% lies above 58"
