"""Closed-form heads against scipy and scikit-learn, and their gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.solvers import LinearHead, cosine, nearest_centroid, ridge

SHAPES = pytest.mark.parametrize(
    ("counts", "dimension"),
    [([5] * 5, 64), ([2] * 5, 16), ([3, 5, 11], 40), ([20, 7], 4), ([5] * 20, 640), ([2, 2], 4)],
    ids=str,
)


def task(counts: list[int], dimension: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Three tasks: support (3, S, D), labels (3, S) in mixed order, query (3, 9, D)."""
    generator = torch.Generator().manual_seed(3)
    ordered = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = torch.stack([ordered[torch.randperm(len(ordered), generator=generator)] for _ in range(3)])
    support = torch.randn(3, len(ordered), dimension, generator=generator, dtype=dtype)
    return support, labels, torch.randn(3, 9, dimension, generator=generator, dtype=dtype)


def test_scores_are_weight_times_feature_plus_bias() -> None:
    head = LinearHead(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[10.0, 20.0]]))
    assert head.scores(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])).tolist() == [
        [[11, 23], [12, 24], [13, 27]]
    ]


@SHAPES
@pytest.mark.parametrize("l2", [0.01, 1.0, 50.0])
def test_ridge_solves_the_normal_equations(counts: list[int], dimension: int, l2: float) -> None:
    support, labels, query = task(counts, dimension)
    head = ridge(support, labels, len(counts), l2=l2)
    assert not head.bias.any()
    for features, classes, weight, queries, scores in zip(support, labels, head.weight, query, head.scores(query)):
        targets = np.eye(len(counts))[classes]
        matrix, right = features.numpy(), features.numpy().T @ targets
        solution = scipy.linalg.solve(matrix.T @ matrix + l2 * np.eye(dimension), right, assume_a="pos")
        np.testing.assert_allclose(weight, solution.T, atol=1e-9)
        model = Ridge(alpha=l2, fit_intercept=False).fit(matrix, targets)
        np.testing.assert_allclose(scores, model.predict(queries.numpy()), atol=1e-9)


@SHAPES
@pytest.mark.parametrize("l2", [1.0, 50.0])
def test_ridge_in_float32_is_close_to_float64(counts: list[int], dimension: int, l2: float) -> None:
    support, labels, query = task(counts, dimension, torch.float32)
    results = []
    for dtype in (torch.float32, torch.float64):
        given = support.to(dtype, copy=True).requires_grad_()
        head = ridge(given, labels, len(counts), l2=l2)
        assert head.weight.dtype == dtype
        head.scores(query.to(dtype)).square().sum().backward()
        results.append((head.weight.detach().double(), given.grad.double()))
    for single, double in zip(*results):
        torch.testing.assert_close(single, double, rtol=0, atol=1e-5 * double.abs().max().item())


@pytest.mark.parametrize("counts", [[1, 1], [30, 30], [1] * 20, [15] * 5], ids=str)
@pytest.mark.parametrize("dimension", [2, 100, 16_000])
def test_ridge_bears_duplicate_and_zero_features(counts: list[int], dimension: int) -> None:
    support, labels, query = task(counts, dimension)
    support[:, 1] = support[:, 0]
    support[:, -1] = 0
    head = ridge(support, labels, len(counts), l2=0.5)
    for features, classes, queries, scores in zip(support.numpy(), labels.numpy(), query, head.scores(query)):
        model = Ridge(alpha=0.5, fit_intercept=False, solver="svd").fit(features, np.eye(len(counts))[classes])
        np.testing.assert_allclose(scores, model.predict(queries.numpy()), atol=1e-8)


@SHAPES
def test_nearest_centroid_is_the_negative_squared_distance(counts: list[int], dimension: int) -> None:
    support, labels, query = task(counts, dimension)
    scores = nearest_centroid(support, labels, len(counts)).scores(query)
    for features, classes, queries, row in zip(support.numpy(), labels.numpy(), query.numpy(), scores.numpy()):
        model = NearestCentroid().fit(features, classes)
        distances = cdist(queries, model.centroids_, "sqeuclidean")
        np.testing.assert_allclose(row - (queries**2).sum(1, keepdims=True), -distances, atol=1e-9)
        assert (row.argmax(1) == model.predict(queries)).all()


@SHAPES
def test_cosine_is_the_cosine_to_the_mean_direction(counts: list[int], dimension: int) -> None:
    support, labels, query = task(counts, dimension)
    query = torch.nn.functional.normalize(query, dim=-1)
    scores = cosine(support, labels, len(counts)).scores(query)
    for features, classes, queries, row in zip(support.numpy(), labels.numpy(), query.numpy(), scores.numpy()):
        directions = features / np.linalg.norm(features, axis=1, keepdims=True)
        means = np.stack([directions[classes == way].mean(0) for way in range(len(counts))])
        np.testing.assert_allclose(row, cosine_similarity(queries, means), atol=1e-12)


def test_zero_features_have_no_direction() -> None:
    head = cosine(torch.zeros(1, 2, 3), torch.tensor([[0, 1]]), 2)
    assert not head.weight.any()


@pytest.mark.parametrize("solver", [ridge, nearest_centroid, cosine])
@pytest.mark.parametrize("dimension", [3, 9], ids=["primal", "dual"])
def test_heads_are_differentiable(solver, dimension: int) -> None:
    support, labels, query = task([3, 2], dimension)

    def scores(features: Tensor) -> Tensor:
        return solver(features, labels, 2).scores(query)

    assert torch.autograd.gradcheck(scores, support.requires_grad_())


def test_ridge_passes_gradients_to_a_learnt_penalty() -> None:
    support, labels, query = task([3, 2], 4)
    penalty = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda l2: ridge(support, labels, 2, l2=l2).scores(query), penalty)


@pytest.mark.parametrize("dimension", [3, 9], ids=["primal", "dual"])
def test_ridge_is_twice_differentiable(dimension: int) -> None:
    support, labels, query = task([3, 2], dimension)
    penalty = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def scores(features: Tensor, l2: Tensor) -> Tensor:
        return ridge(features, labels, 2, l2=l2).scores(query)

    assert torch.autograd.gradgradcheck(scores, (support.requires_grad_(), penalty))


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
def test_ridge_refuses_a_penalty_that_is_not_positive(l2: float) -> None:
    with pytest.raises(ConfigError, match="l2 is"):
        ridge(torch.ones(1, 2, 3), torch.tensor([[0, 1]]), 2, l2=l2)


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan"), float("inf")])
def test_ridge_refuses_a_learnt_penalty_that_is_not_positive(l2: float) -> None:
    """Also where the system is sound, as it is here for -1."""
    penalty = torch.tensor(l2, requires_grad=True)
    with pytest.raises(DivergenceError, match=rf"the learnt penalty l2 of ridge is {l2}, .* learning rate"):
        ridge(3 * torch.eye(3)[None, :2], torch.tensor([[0, 1]]), 2, l2=penalty)


def test_ridge_has_one_penalty_for_all_tasks() -> None:
    support, labels, _ = task([3, 2], 4, torch.float32)
    expected = ridge(support, labels, 2, l2=0.7).weight
    for penalty in (torch.tensor(0.7), torch.tensor([0.7]), torch.tensor([[[0.7]]], dtype=torch.float64)):
        torch.testing.assert_close(ridge(support, labels, 2, l2=penalty).weight, expected)
    with pytest.raises(ConfigError, match=r"l2 is a tensor of shape \(3, 1, 1\)"):
        ridge(support, labels, 2, l2=torch.ones(3, 1, 1))


def test_ridge_names_a_task_that_is_singular() -> None:
    support = torch.stack([torch.eye(4)[:2], 1024 * torch.ones(2, 4)])
    with pytest.raises(DataError, match=r"task 1 is singular .* raise l2, normalise the features, or use float64"):
        ridge(support, torch.tensor([[0, 1], [0, 1]]), 2, l2=1e-6)


def by_least_squares(features: Tensor, labels: Tensor, ways: int, l2: float) -> Tensor:
    """The ridge weight (N, D) of one task from the singular values of [X; sqrt(l2) I], whose squares nobody takes."""
    dimension = features.shape[-1]
    matrix = np.concatenate([features.double().numpy(), l2**0.5 * np.eye(dimension)])
    targets = np.concatenate([np.eye(ways)[labels], np.zeros((dimension, ways))])
    return torch.from_numpy(np.linalg.lstsq(matrix, targets, rcond=None)[0].T)


@pytest.mark.parametrize("kind", ["duplicates", "near duplicates", "collinear dimensions"])
def test_ridge_of_a_nearly_singular_system_is_refused_or_accurate(kind: str) -> None:
    """The smallest penalties drown in the rounding of squared lengths of 5e4, which Cholesky itself may not notice."""
    labels, refused = torch.arange(25)[None] % 5, {}
    for l2 in (1e-3, 0.01, 0.1, 0.3, 1.0, 3.0, 30.0):
        for seed in range(15):
            generator = torch.Generator().manual_seed(seed)
            support = 30 * torch.randn(1, 25, 20 if kind == "collinear dimensions" else 64, generator=generator)
            pairs = support.mT if kind == "collinear dimensions" else support
            pairs[:, 1:10:2] = pairs[:, 0:10:2]
            if kind == "near duplicates":
                pairs[:, 1:10:2] += 1e-3 * torch.randn(pairs[:, 1:10:2].shape, generator=generator)
            try:
                weight = ridge(support, labels, 5, l2=l2).weight[0].double()
            except DataError:
                refused[l2] = refused.get(l2, 0) + 1
                continue
            exact = by_least_squares(support[0], labels[0], 5, l2)
            assert (weight - exact).abs().max() < 0.02 * exact.abs().max()
    assert refused[1e-3] == 15
    assert 30.0 not in refused


def test_ridge_needs_no_penalty_beside_other_images_for_features_of_zeros() -> None:
    """R2D2 puts zeros in the place of images that a task does without; their equations stand alone."""
    generator = torch.Generator().manual_seed(0)
    support, labels = 30 * torch.randn(1, 25, 64, generator=generator), torch.arange(25)[None] % 5
    support[:, 15:] = 0
    weight = ridge(support, labels, 5, l2=1e-3).weight[0].double()
    exact = by_least_squares(support[0], labels[0], 5, 1e-3)
    torch.testing.assert_close(weight, exact, rtol=0, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("solver", [ridge, nearest_centroid, cosine])
def test_every_solver_checks_its_support(solver) -> None:
    with pytest.raises(DataError, match="class 1 of task 0 has no support image"):
        solver(torch.ones(1, 2, 3), torch.tensor([[0, 0]]), 2)
