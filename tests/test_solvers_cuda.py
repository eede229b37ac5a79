"""Solvers on a GPU give the results and gradients that they give on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kshot.solvers import Attention, Head, ridge, svm

Solver = Callable[[Tensor, Tensor, int], Head]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dimension", [8, 64])
@pytest.mark.parametrize("solver", [ridge, svm, Attention().head], ids=["ridge", "svm", "attention"])
def test_a_gpu_gives_the_scores_and_the_gradient_of_the_cpu(solver: Solver, dimension: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.arange(25)[torch.randperm(25, generator=generator)] % 5 for _ in range(3)])
    support = torch.randn(3, 25, dimension, generator=generator, dtype=torch.float64)
    query = torch.randn(3, 7, dimension, generator=generator, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        given = support.to(device, copy=True).requires_grad_()
        scores = solver(given, labels.to(device), 5).scores(query.to(device))
        assert scores.device.type == device
        scores.sin().sum().backward()
        results.append((scores.detach().cpu(), given.grad.cpu()))
    for on_cpu, on_gpu in zip(*results):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-8, atol=1e-8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_learnt_penalty_may_lie_on_a_gpu() -> None:
    penalty = torch.tensor(0.5, device="cuda", requires_grad=True)
    support, labels = torch.eye(3, device="cuda")[None], torch.arange(3, device="cuda")[None]
    ridge(support, labels, 3, l2=penalty).weight.sum().backward()
    assert penalty.grad.item() == pytest.approx(-3 / 1.5**2)
