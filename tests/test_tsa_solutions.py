"""The file of task solutions, and their clusters."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

import kshot.tsa.solutions
from kshot.errors import CheckpointError, ConfigError
from kshot.tsa.clustering import cluster
from kshot.tsa.solutions import SolutionFile


def test_a_full_disk_keeps_the_earlier_solutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SolutionFile(tmp_path, tasks=4, size=3, origin={"seed": 0})
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    file.append(rows[:2])

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(kshot.tsa.solutions.os, "fsync", no_space)
        with pytest.raises(CheckpointError, match="its first 2 rows are kept: the disk is full; free some space"):
            file.append(rows[2:])
    again = SolutionFile(tmp_path, tasks=4, size=3, origin={"seed": 0})
    assert again.done == 2
    again.append(rows[2:])
    assert again.complete
    np.testing.assert_array_equal(again.read(), rows)
    assert json.loads((tmp_path / "progress.json").read_text())["done"] == 4


@pytest.mark.parametrize("method", ["kmeans", "minibatch"])
def test_clusters_are_those_that_are_there(method: Any) -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 1, (3, 7))
    labels = np.repeat(np.arange(3), [10, 20, 30])
    vectors = (centres[labels] + generator.normal(0, 0.01, (60, 7))).astype(np.float32)
    found = cluster(vectors, 3, method=method, seed=5)
    order = np.argsort(found.sizes)
    assert found.sizes[order].tolist() == [10, 20, 30]
    means = np.stack([vectors[labels == group].mean(0) for group in range(3)])
    np.testing.assert_allclose(found.centroids[order], means, atol=1e-5 if method == "kmeans" else 0.02)


@pytest.mark.parametrize("method", ["kmeans", "minibatch"])
def test_the_seed_chooses_the_clusters(method: Any) -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (200, 3)).astype(np.float32)
    first, again, other = (cluster(vectors, 12, method=method, seed=seed).centroids for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(np.sort(first, 0), np.sort(other, 0)), "noise has no clusters that every seed would find"


@pytest.mark.parametrize(("method", "kind"), [("kmeans", KMeans), ("minibatch", MiniBatchKMeans)])
def test_the_best_of_several_restarts_is_kept(method: Any, kind: Any) -> None:
    """Among overlapping clusters a single descent often ends in a bad optimum."""
    vectors = np.random.default_rng(0).normal(0, 1, (600, 3)).astype(np.float32)
    better = 0
    for seed in range(8):
        once, thrice = (
            kind(12, n_init=count, random_state=seed, **({"batch_size": 256} if kind is MiniBatchKMeans else {}))
            .fit(vectors)
            .cluster_centers_
            for count in (1, 3)
        )
        np.testing.assert_allclose(cluster(vectors, 12, method=method, seed=seed).centroids, thrice, rtol=1e-5)
        better += not np.allclose(once, thrice)
    assert better > 2, "the restarts make a difference"


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_too_few_distinct_solutions_are_told() -> None:
    with pytest.raises(ConfigError, match="filled only 2 of 3 groups with 8 task solutions"):
        cluster(np.repeat(np.eye(2, dtype=np.float32), 4, 0), 3)
