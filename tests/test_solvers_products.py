"""Products that numpy takes over from torch, against torch, and which of them it takes."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.errors import DivergenceError, KshotError
from kshot.solvers import LinearHead, adaptations
from kshot.solvers import products as module
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.distances import nearest_neighbours
from kshot.solvers.products import in_stages, inner_products, lengths, product

SHAPES = pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(5, 64, 75), (75, 64, 5), (1, 7, 1), (20, 640, 75), (8, 2000, 100), (5, 3, 300)]
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def close(actual: Tensor, expected: Tensor) -> None:
    """Equal to rounding, relative to the largest value."""
    bound = 3e-6 if actual.dtype == torch.float32 else 1e-13
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound * float(expected.abs().max()) + bound)


@SHAPES
@DTYPES
def test_products_are_torchs(rows: int, inner: int, columns: int, dtype: torch.dtype) -> None:
    left, right, plus = draw(rows, inner, dtype=dtype), draw(columns, inner, dtype=dtype), draw(1, columns, dtype=dtype)
    for others in (right.mT, right.mT.contiguous()):
        close(product(left, others), left @ others)
        result = product(left, others, plus=plus)
        close(result, left @ others + plus)
        assert result.is_contiguous()


@pytest.mark.parametrize("images", [1, 7, 8, 9, 16, 75, 200])
@DTYPES
def test_inner_products_are_symmetric_and_torchs(images: int, dtype: torch.dtype) -> None:
    given = draw(images, 20, dtype=dtype)
    result = inner_products(given)
    close(result, given @ given.mT)
    assert images > 75 or torch.equal(result, result.mT)


def test_a_stage_takes_all_tasks_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = draw(5, 64), draw(75, 64)
    sizes = []

    def stage(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(left))
        return left @ right.swapaxes(1, 2), lengths(right)

    monkeypatch.setattr(module, "_CACHE_BYTES", 2 * 80 * 64 * 8)
    result, of_right = in_stages(stage, left, right, vectors=5)
    assert sizes == [2, 1]
    torch.testing.assert_close(result, left @ right.mT)
    torch.testing.assert_close(of_right, torch.linalg.vector_norm(right, dim=2, keepdim=True))


def test_gradients_and_many_threads_are_torchs() -> None:
    left, right = draw(5, 64).requires_grad_(), draw(75, 64).mT
    product(left, right).sum().backward()
    torch.testing.assert_close(left.grad, right.sum(2)[:, None].expand_as(left))
    assert product(left, right).requires_grad
    with torch.no_grad():
        assert not product(left, right).requires_grad
    kinds = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            in_stages(lambda images: (kinds.append(type(images)) or images,), right.mT, vectors=5)
    finally:
        torch.set_num_threads(threads)
    assert kinds == [np.ndarray, Tensor]


@pytest.mark.parametrize("count", [1, 3, 9, 50])
def test_neighbours_of_arrays_are_those_of_tensors(count: int) -> None:
    distances = torch.cdist(draw(20, 4), draw(20, 4) + 1)  # not symmetric
    of_arrays = torch.from_numpy(nearest_neighbours(distances.numpy(), count))
    assert torch.equal(of_arrays, nearest_neighbours(distances, count))
    assert of_arrays.sum(1).eq(min(count, 19)).all()


@pytest.mark.parametrize("name", [name for name, cls in adaptations.items() if issubclass(cls, HeadAdaptation)])
@pytest.mark.parametrize("threads", [1, 3], ids=["numpy", "torch"])
def test_every_head_scores_alike_by_numpy_and_torch_or_refuses(name: str, threads: int) -> None:
    """Features of float32 that are NaN, infinite, constant, alike, or too large to be squared: never NaN."""
    support, query = draw(9, 12, dtype=torch.float32).abs(), draw(15, 12, dtype=torch.float32).abs()
    labels = torch.arange(3).repeat(3, 3)
    adaptation = adaptations[name]()
    assert isinstance(adaptation, HeadAdaptation)
    adaptation = adaptation.centred_at(support.flatten(0, 1).mean(0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for scale in (1.0, 0.0, 1e-30, 1e30):
            with nullcontext() if scale == 1.0 else suppress(KshotError):
                scores = adaptation.head(scale * support, labels, 3).scores(scale * query)
                assert scores.isfinite().all(), f"scale {scale:g}"
        for value in (torch.nan, torch.inf):
            broken = query.clone()
            broken[1, 2, 3] = value
            with pytest.raises(DivergenceError, match="task 1: the query features are not all finite"):
                adaptation.head(support, labels, 3).scores(broken)
            broken = support.clone()
            broken[2, 0, 0] = value
            with pytest.raises(DivergenceError, match="task 2: the support features are not all finite"):
                adaptation.head(broken, labels, 3)
    finally:
        torch.set_num_threads(before)


def test_scores_that_overflow_are_said_to_be_of_finite_features() -> None:
    head = LinearHead(torch.full((1, 2, 3), 1e30), torch.zeros(1, 2))
    with pytest.raises(DivergenceError, match=r"task 0: the scores of query images .* scale the features"):
        head.scores(torch.full((1, 4, 3), 1e30))
