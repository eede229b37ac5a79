"""k-means over the solutions of tasks: the stage of TSA-MAML that finds the groups (Z21 section 4.2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans

from kshot.errors import ConfigError

Clustering = Literal["kmeans", "minibatch"]

_RESTARTS = 3  # k-means ends in a local optimum: the best of several is kept
_BATCH = 256  # rows read at a time; three times as many for the first centroids


def check_clustering(method: str, groups: int, solutions: int) -> None:
    """ConfigError if there is no such method, or there are more groups than solutions to group."""
    if method not in ("kmeans", "minibatch"):
        raise ConfigError(f"clustering is {method!r}; choose one of: kmeans, minibatch")
    if groups > solutions:
        raise ConfigError(
            f"groups is {groups}, but there are only {solutions} task solutions to group; choose fewer groups or more "
            f"solutions"
        )


def cluster(
    vectors: NDArray[np.float32], groups: int, *, method: Clustering = "kmeans", seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Group vectors by k-means, the best of several restarts.

    Parameters
    ----------
    vectors
        Vectors (n, D), float32, in memory or memory-mapped.
    groups
        m, the number of groups.
    method
        "kmeans" holds all vectors in memory, twice; "minibatch" reads some of a memory-mapped array at a time, and its
        centroids are the means of its groups only roughly.
    seed
        Chooses the first centroids.

    Returns
    -------
    tuple
        Centroids (m, D), float32, and the sizes (m,) of the groups, int64.

    Raises
    ------
    ConfigError
        If there are fewer distinct vectors than groups, or no such method.
    """
    check_clustering(method, groups, len(vectors))
    shared = {"n_clusters": groups, "n_init": _RESTARTS, "random_state": seed % 2**32}
    clustering = KMeans(**shared) if method == "kmeans" else MiniBatchKMeans(**shared, batch_size=_BATCH)
    labels = clustering.fit(vectors).labels_
    sizes = np.bincount(labels, minlength=groups)
    if (sizes == 0).any():
        raise ConfigError(
            f"k-means filled only {int((sizes > 0).sum())} of {groups} groups with {len(vectors)} task solutions; "
            f"choose fewer groups or more solutions"
        )
    return clustering.cluster_centers_.astype(np.float32), sizes.astype(np.int64)
