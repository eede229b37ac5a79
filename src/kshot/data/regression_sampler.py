"""Tasks of a family of functions, drawn by their numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kshot import seeding
from kshot.data.episodes import Episodes, IntArray, TaskShape
from kshot.data.regression import Family, FloatArray, Keys, RegressionSplit
from kshot.errors import ConfigError, DataError


class RegressionSampler:
    """Draws regression tasks of K support and Q query points; every task number names the same task in every process.

    Parameters
    ----------
    split
        The tasks of a family.
    shape
        One way, and how many points are support and query.
    seed
        Names the set of tasks.

    Raises
    ------
    ConfigError
        If the shape has more than one way.
    """

    def __init__(self, split: RegressionSplit, shape: TaskShape, *, seed: int) -> None:
        if shape.ways != 1:
            raise ConfigError(
                f"ways is {shape.ways}, but the tasks of {split.dataset} have one output and no classes; leave out ways"
            )
        self.split, self.shape, self.seed = split, shape, seed
        self._key = seeding.key(seed, "regression", split.dataset, split.name, shape.shots, shape.queries)

    def __repr__(self) -> str:
        points = f"{self.shape.shots} support and {self.shape.queries} query points"
        return f"RegressionSampler: tasks of {self.split.dataset}/{self.split.name} with {points}, seed {self.seed}"

    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with these numbers: inputs (B, K or Q, d) and labels (B, K or Q, 1), float32, on `device`.

        Raises
        ------
        DataError
            If the family returns arrays of other shapes than `Family` asks for, or values that are not finite.
        """
        family, shots = self.split.family, self.shape.shots
        keys = self._keys(numbers)
        count = shots + self.shape.queries
        points = family.points(keys, np.arange(count))
        seen, values = family.inputs(points), family.values(keys, points)
        _check_drawn(family, "inputs(points(...))", seen, (len(keys), count, family.input_size))
        _check_drawn(family, "values", values, (len(keys), count))
        inputs, labels = (torch.from_numpy(part).to(device, torch.float32) for part in (seen, values[..., None]))
        return Episodes(
            support=inputs[:, :shots],
            support_labels=labels[:, :shots],
            query=inputs[:, shots:],
            query_labels=labels[:, shots:],
            classes=torch.zeros(len(keys), 1, dtype=torch.int64, device=device),
            keys=seeding.bits(keys, 1 << 21),
        )

    def domains(self, numbers: IntArray) -> NDArray[np.str_]:
        """The kind of function of the tasks with these numbers, (B,) names."""
        return np.asarray(self.split.family.kinds)[self.split.family.kind(self._keys(numbers))]

    def values(self, numbers: IntArray, points: FloatArray) -> FloatArray:
        """The true functions of the tasks with these numbers at points (P, d): (B, P)."""
        keys = self._keys(numbers)
        return self.split.family.values(keys, np.broadcast_to(points, (len(keys), *points.shape)))

    def _keys(self, numbers: IntArray) -> Keys:
        return seeding.bits(self._key, np.asarray(numbers))


def _check_drawn(family: Family, what: str, drawn: FloatArray, shape: tuple[int, ...]) -> None:
    if np.shape(drawn) != shape:
        raise DataError(f"the family {family.name}: {what} has the shape {np.shape(drawn)}, but must have {shape}")
    if not np.isfinite(drawn).all():
        raise DataError(f"the family {family.name}: {what} holds numbers that are not finite")
