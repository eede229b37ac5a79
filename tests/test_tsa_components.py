"""TSA-MAML's distances along principal axes: axes, groups and assignment against plain computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score
from test_tsa_maml import build, tasks

from kshot.errors import ConfigError
from kshot.tsa.clustering import check_clustering, cluster

GROUPS = 3
METHODS: list[Any] = ["kmeans", "minibatch"]


def domains_beside_a_wide_axis() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three kinds of points that differ along two axes, and more among themselves along two others."""
    generator = np.random.default_rng(0)
    kinds = np.repeat(np.arange(GROUPS), 100)
    points = generator.normal(0, 0.1, (300, 40))
    points[:, :2] += np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])[kinds]
    points[:, 2:4] += generator.uniform(-6, 6, (300, 2))
    turned = np.linalg.qr(generator.normal(size=(40, 40)))[0]
    return (points @ turned + 3.0).astype(np.float32), kinds


@pytest.mark.parametrize("method", METHODS)
def test_kinds_are_found_beside_axes_along_which_all_differ_more(method: Any) -> None:
    points, kinds = domains_beside_a_wide_axis()

    def agreement(components: int) -> float:
        found = cluster(points, GROUPS, method=method, components=components, seed=1)
        nearest = np.square((points[:, None] - found.centroids) @ measure(found.axes)).sum(2).argmin(1)
        return normalized_mutual_info_score(kinds, nearest)

    def measure(axes: NDArray[np.float32]) -> NDArray[np.float32]:
        return axes.T if len(axes) else np.eye(40, dtype=np.float32)

    assert agreement(0) < 0.5
    assert agreement(4) > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_axes_are_those_of_the_covariance(method: Any) -> None:
    points, _ = domains_beside_a_wide_axis()
    found = cluster(points, GROUPS, method=method, components=4, seed=1)
    values, vectors = np.linalg.eigh(np.cov(points.T.astype(np.float64)))
    plain = (vectors[:, -4:] / np.sqrt(values[-4:])).T
    # the square of a distance does not depend on the axes' signs and order
    np.testing.assert_allclose(found.axes.T @ found.axes, plain.T @ plain, atol=1e-3 * np.abs(plain.T @ plain).max())
    whitened = points @ found.axes.T
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=1e-2)
    nearest = np.square((points[:, None] - found.centroids) @ found.axes.T).sum(2).argmin(1)
    for group in range(GROUPS):
        np.testing.assert_allclose(found.centroids[group], points[nearest == group].mean(0), atol=1e-4)
    assert found.sizes.tolist() == np.bincount(nearest).tolist()


@pytest.mark.parametrize("assignment", ["initial", "current"])
def test_a_task_takes_the_group_that_is_nearest_along_the_axes(assignment: Any) -> None:
    learner = build(groups=GROUPS, cluster_components=2, assignment=assignment)
    axes = torch.randn(2, learner.vector_size, dtype=torch.float64)
    learner.start_groups(learner.task_vectors(tasks(GROUPS, seed=1)), axes=axes)
    batch = tasks(12)
    anchors = learner.centroids if assignment == "initial" else learner.group_vectors()
    expected = []
    for vector in learner.task_vectors(batch):
        expected.append(int(torch.stack([(axes @ (vector - anchor)).square().sum() for anchor in anchors]).argmin()))
    assert learner.assigned(batch).tolist() == expected
    euclidean = torch.cdist(learner.task_vectors(batch), anchors).argmin(1).tolist()
    assert len(set(expected)) > 1
    assert expected != euclidean


def test_too_few_solutions_for_the_axes_are_told_before_any_work() -> None:
    with pytest.raises(ConfigError, match="cluster_components is 20, but 20 task solutions vary along 19 axes at most"):
        check_clustering("kmeans", 3, 20, components=20)
    flat = np.random.default_rng(0).normal(0, 1, (30, 3)).astype(np.float32) @ np.ones((3, 8), np.float32)
    with pytest.raises(ConfigError, match="cluster_components is 2, but the task solutions vary along 1 axes only"):
        cluster(flat, 3, components=2)
    with pytest.raises(ConfigError, match="cluster_components is -1"):
        build(cluster_components=-1)
