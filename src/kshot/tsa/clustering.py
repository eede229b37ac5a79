"""k-means over the solutions of tasks: the stage of TSA-MAML that finds the groups (Z21 section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA, IncrementalPCA

from kshot.errors import ConfigError

Clustering = Literal["kmeans", "minibatch"]

_RESTARTS = 3  # k-means ends in a local optimum: the best of several is kept
_RESTARTS_OF_FEW = 20  # of points with few coordinates, where a restart costs next to nothing
_BATCH = 256  # rows read at a time; three times as many for the first centroids


@dataclass(frozen=True)
class Clusters:
    """Groups of vectors.

    Attributes
    ----------
    centroids
        (m, D) float32, the means of the groups; of "minibatch" without axes, only roughly.
    sizes
        (m,) int64.
    axes
        (k, D) float32, the leading principal axes, each divided by the standard deviation of the vectors along it.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    axes: NDArray[np.float32]


def check_clustering(method: str, groups: int, solutions: int, *, components: int = 0) -> None:
    """ConfigError if there is no such method, or there are fewer solutions than groups or than axes need."""
    if method not in ("kmeans", "minibatch"):
        raise ConfigError(f"clustering is {method!r}; choose one of: kmeans, minibatch")
    if groups > solutions:
        raise ConfigError(
            f"groups is {groups}, but there are only {solutions} task solutions to group; choose fewer groups or more "
            f"solutions"
        )
    if components >= solutions:
        raise ConfigError(
            f"cluster_components is {components}, but {solutions} task solutions vary along {solutions - 1} axes at "
            f"most, and tell axes from noise if there are some thirty times as many; choose fewer, or more solutions"
        )


def cluster(
    vectors: NDArray[np.float32], groups: int, *, method: Clustering = "kmeans", components: int = 0, seed: int = 0
) -> Clusters:
    """Group vectors by k-means, the best of several restarts.

    Parameters
    ----------
    vectors
        Vectors (n, D), float32, in memory or memory-mapped.
    groups
        m, the number of groups.
    method
        "kmeans" holds all vectors in memory, twice; "minibatch" reads some of a memory-mapped array at a time, and its
        groups are found only roughly.
    components
        k, the number of leading principal axes along which distances are taken, in units of the standard deviation
        along each; 0 for Euclidean distances.
    seed
        Chooses the first centroids.

    Raises
    ------
    ConfigError
        If there are fewer distinct vectors than groups, fewer than axes need, or no such method.
    """
    check_clustering(method, groups, len(vectors), components=components)
    points, axes = vectors, np.zeros((0, vectors.shape[1]), np.float32)
    if components > 0:
        points, axes = _whitened(vectors, components, method=method, seed=seed)
    restarts = _RESTARTS_OF_FEW if components > 0 else _RESTARTS
    shared = {"n_clusters": groups, "n_init": restarts, "random_state": seed % 2**32}
    clustering = KMeans(**shared) if method == "kmeans" else MiniBatchKMeans(**shared, batch_size=_BATCH)
    labels = clustering.fit(points).labels_
    sizes = np.bincount(labels, minlength=groups)
    if (sizes == 0).any():
        raise ConfigError(
            f"k-means filled only {int((sizes > 0).sum())} of {groups} groups with {len(vectors)} task solutions; "
            f"choose fewer groups or more solutions"
        )
    centroids = _means(vectors, labels, sizes) if components > 0 else clustering.cluster_centers_.astype(np.float32)
    return Clusters(centroids, sizes.astype(np.int64), axes)


def _whitened(
    vectors: NDArray[np.float32], components: int, *, method: Clustering, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The vectors' coordinates (n, k) along their leading principal axes, of variance 1 each, and the axes (k, D)."""
    if method == "kmeans":
        analysis = PCA(components, svd_solver="randomized", random_state=seed % 2**32).fit(vectors)
    else:
        analysis = IncrementalPCA(components, batch_size=max(_BATCH, components)).fit(vectors)
    spread = np.sqrt(analysis.explained_variance_)
    if not spread[-1] > 1e-6 * spread[0]:
        kept = int((spread > 1e-6 * spread[0]).sum())
        raise ConfigError(f"cluster_components is {components}, but the task solutions vary along {kept} axes only")
    axes = (analysis.components_ / spread[:, None]).astype(np.float32)
    # distances do not change if the mean is left in, so that whoever measures one needs the axes alone
    points = np.concatenate([vectors[start : start + _BATCH] @ axes.T for start in range(0, len(vectors), _BATCH)])
    return points, axes


def _means(vectors: NDArray[np.float32], labels: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean (m, D) of each group, reading some rows at a time."""
    sums = np.zeros((len(sizes), vectors.shape[1]))
    for start in range(0, len(vectors), _BATCH):
        members = np.eye(len(sizes))[labels[start : start + _BATCH]]
        sums += members.T @ vectors[start : start + _BATCH]
    return (sums / sizes[:, None]).astype(np.float32)
