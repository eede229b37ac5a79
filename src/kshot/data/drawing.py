"""Drawing without replacement, as a pure function of keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kshot import seeding

_FEW_DRAWS, _MOST_ITEMS = 12, 1 << 20  # at most so many draws, or more items: tables cost more than swaps


def draw_without_replacement(keys: NDArray[np.uint64], sizes: NDArray[np.int64], draws: int) -> NDArray[np.int64]:
    """For each key, `draws` distinct integers below `sizes`, uniform and in uniform order: (*keys.shape, draws).

    A Fisher-Yates shuffle: draw j takes the item at a random position r_j >= j and leaves the item of position j there.
    """
    counters = np.arange(draws).reshape(-1, *[1] * np.ndim(keys))
    positions = counters + seeding.below(np.asarray(keys)[None], counters, np.asarray(sizes)[None] - counters)
    many = draws > _FEW_DRAWS and positions[0].size * np.max(sizes, initial=0) <= _MOST_ITEMS
    drawn = (_drawn_from_tables if many else _drawn_by_swaps)(positions.astype(np.int32))
    return np.moveaxis(drawn, 0, -1).astype(np.int64)


def _drawn_by_swaps(positions: NDArray[np.int32]) -> NDArray[np.int32]:
    """The shuffle that keeps only the swaps it makes: its cost grows with draws^2, and not with the size of a class."""
    drawn, left_behind = np.empty_like(positions), np.empty_like(positions)
    for j in range(len(positions)):
        taken, replacing = positions[j].copy(), np.full(positions.shape[1:], j, np.int32)
        for i in range(j):
            np.copyto(taken, left_behind[i], where=positions[i] == positions[j])
            np.copyto(replacing, left_behind[i], where=positions[i] == j)
        drawn[j], left_behind[j] = taken, replacing
    return drawn


def _drawn_from_tables(positions: NDArray[np.int32]) -> NDArray[np.int32]:
    """The shuffle as it is usually written, on a table of all items for each key: its cost grows with their number."""
    flat = positions.reshape(len(positions), -1)
    items = np.tile(np.arange(flat.max(initial=0) + 1, dtype=np.int32), (flat.shape[1], 1))
    key, drawn = np.arange(flat.shape[1]), np.empty_like(flat)
    for j, position in enumerate(flat):
        drawn[j] = items[key, position]
        items[key, position] = items[:, j]
    return drawn.reshape(positions.shape)
