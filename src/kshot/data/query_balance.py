"""Tasks whose query images are not spread equally over the classes: Dirichlet proportions, or a single image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kshot import seeding
from kshot.data.episodes import EpisodeRows, EpisodeSampler, IntArray, TaskShape
from kshot.data.split import Split
from kshot.measures import QueryBalance

CONCENTRATION = 2  # of Veilleux et al. (2021); a whole number, of which a gamma variate is a sum of exponential ones

_STREAM = seeding.key("query balance")


@dataclass(frozen=True)
class UnbalancedRows(EpisodeRows):
    """Rows of tasks whose T query images are of any class; `query` is (B, T).

    Parameters
    ----------
    query_ways
        (B, T) the label of each query image.
    """

    query_ways: IntArray

    def labels(self) -> tuple[IntArray, IntArray]:
        """Support labels (B, N*K) and query labels (B, T), 0..N-1."""
        tasks, ways, shots = self.support.shape
        return np.tile(np.repeat(np.arange(ways), shots), (tasks, 1)), self.query_ways


class UnbalancedSampler(EpisodeSampler):
    """Draws the tasks of an `EpisodeSampler`, the same support images included, with other query images.

    Parameters
    ----------
    split, shape, seed, within_domain
        As for `EpisodeSampler`.
    balance
        "dirichlet": N*Q query images per task, of which each class has a share drawn from a Dirichlet distribution of
        concentration 2 (Veilleux et al. 2021, section 5); a class may have none. "single": one query image per task, of
        a class that is drawn.

    Raises
    ------
    DataError
        As `EpisodeSampler`. For "dirichlet", each class needs as many images as would do if all queries were its own.
    """

    def __init__(
        self, split: Split, shape: TaskShape, *, balance: QueryBalance, seed: int, within_domain: bool | None = None
    ) -> None:
        self.balance = balance
        super().__init__(split, shape, seed=seed, within_domain=within_domain)

    def __repr__(self) -> str:
        return f"{super().__repr__()}, query images: {self.balance}"

    @property
    def most_queries(self) -> int:
        """The most query images that a class may have."""
        return 1 if self.balance == "single" else self.shape.ways * self.shape.queries

    def rows(self, numbers: IntArray) -> UnbalancedRows:
        """The rows of the tasks with these numbers, (B,) non-negative integers."""
        drawn = super().rows(numbers)
        chosen = np.arange(self.most_queries) < self._counts(drawn.keys)[..., None]
        tasks = len(drawn.classes)
        return UnbalancedRows(
            drawn.support,
            drawn.query[chosen].reshape(tasks, -1),
            drawn.classes,
            drawn.keys,
            chosen.nonzero()[1].reshape(tasks, -1),
        )

    def _counts(self, keys: NDArray[np.uint64]) -> IntArray:
        """How many query images each class has, (B, N)."""
        ways = self.shape.ways
        keys = seeding.bits(keys, _STREAM)
        if self.balance == "single":
            return (np.arange(ways) == seeding.below(keys, 0, ways)[:, None]).astype(np.int64)
        draws = 1 + np.arange(ways * CONCENTRATION)
        gammas = -np.log1p(-seeding.uniform(keys[:, None], draws)).reshape(-1, ways, CONCENTRATION).sum(2)
        return whole_shares(gammas / gammas.sum(1, keepdims=True), ways * self.shape.queries)


def whole_shares(proportions: NDArray[np.float64], total: int) -> IntArray:
    """Whole numbers (B, N) that sum to `total`, close to the proportions (B, N): the largest remainders round up."""
    exact = proportions * total
    counts = np.floor(exact).astype(np.int64)
    missing = total - counts.sum(1, keepdims=True)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1, kind="stable")
    return counts + (rank < missing)
