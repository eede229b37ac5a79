"""k-means over the solutions of tasks: the stage of TSA-MAML that finds the groups (Z21 section 4.2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans

from kshot.errors import ConfigError

Clustering = Literal["kmeans", "minibatch"]

_RESTARTS = 3  # k-means ends in a local optimum, and the best of several is kept
_BATCH = 256  # rows that are read at a time; three times as many for the first centroids


def check_clustering(method: str, groups: int, solutions: int) -> None:
    """ConfigError for an unknown method, and for more groups than there are solutions to group."""
    if method not in ("kmeans", "minibatch"):
        raise ConfigError(f"clustering is {method!r}; choose one of: kmeans, minibatch")
    if groups > solutions:
        raise ConfigError(
            f"groups is {groups}, but there are only {solutions} task solutions to group; choose fewer groups or more "
            f"solutions"
        )


def cluster(
    vectors: NDArray[np.float32], groups: int, method: Clustering = "kmeans", seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Centroids (m, D) of the groups that k-means finds among vectors (n, D), and the sizes (m,) of the groups.

    method: "kmeans" holds all vectors in memory, twice; "minibatch" reads some of a memory-mapped array at a time, and
        its centroids are the means of its groups only roughly.
    Raises ConfigError where there are fewer distinct vectors than groups.
    """
    check_clustering(method, groups, len(vectors))
    shared = {"n_clusters": groups, "n_init": _RESTARTS, "random_state": seed % 2**32}
    found = KMeans(**shared) if method == "kmeans" else MiniBatchKMeans(**shared, batch_size=_BATCH)
    labels = found.fit(vectors).labels_
    sizes = np.bincount(labels, minlength=groups)
    if (sizes == 0).any():
        raise ConfigError(
            f"k-means filled only {int((sizes > 0).sum())} of {groups} groups with {len(vectors)} task solutions; "
            f"choose fewer groups or more solutions"
        )
    return found.cluster_centers_.astype(np.float32), sizes.astype(np.int64)
