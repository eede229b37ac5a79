"""Regression tasks, drawn and not stored: sinusoids (Finn et al. 2017) and quadratics (Wang et al. 2021).

A family of functions takes the place of a dataset. Its "train", "val" and "test" tasks are different tasks of one
distribution, and a task has one real-valued output in the place of N classes: its number of ways is 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from kshot import seeding
from kshot.data.dataset import SplitName
from kshot.data.episodes import Episodes, IntArray, TaskShape
from kshot.errors import ConfigError, DataError
from kshot.measures import SQUARED_ERROR, Measure

FloatArray = NDArray[np.float64]
Keys = NDArray[np.uint64]

_POINTS = 1 << 32  # counters from here on belong to the points of a task, those before to its function


class Family(ABC):
    """A distribution over functions R^d -> R, and over the points at which a task shows its function.

    name: what users call it.
    description: one line for ``kshot data list``.
    input_size: d.
    bounds: what the points lie between, where d is 1 and a picture can show the functions.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    input_size: ClassVar[int]
    bounds: ClassVar[tuple[float, float] | None] = None

    @abstractmethod
    def points(self, keys: Keys, numbers: IntArray) -> FloatArray:
        """The points (B, P, d) with the numbers (P,) of the tasks with the keys (B,)."""

    @abstractmethod
    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """The values (B, P) of each task's function at its points (B, P, d)."""

    def inputs(self, points: FloatArray) -> FloatArray:
        """What a network sees of points (B, P, d)."""
        return points


class Sinusoids(Family):
    """y = a sin(x - p) with a ~ U(0.1, 5), p ~ U(0, pi) and x ~ U(-5, 5): Finn et al. (2017), section 5.1."""

    name = "sinusoids"
    description = "regression: each task is a sine wave of its own amplitude and phase (Finn et al. 2017)"
    input_size = 1
    amplitudes: ClassVar[tuple[float, float]] = (0.1, 5.0)
    phases: ClassVar[tuple[float, float]] = (0.0, np.pi)
    bounds = (-5.0, 5.0)

    def points(self, keys: Keys, numbers: IntArray) -> FloatArray:
        """Points (B, P, 1), uniform between the bounds."""
        return _between(self.bounds, keys[:, None], _POINTS + numbers)[..., None]

    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """The sine waves (B, P) at points (B, P, 1)."""
        amplitude, phase = self.parameters(keys)
        return amplitude[:, None] * np.sin(points[..., 0] - phase[:, None])

    def parameters(self, keys: Keys) -> tuple[FloatArray, FloatArray]:
        """Amplitudes (B,) and phases (B,)."""
        return _between(self.amplitudes, keys, 0), _between(self.phases, keys, 1)


class Quadratics(Family):
    """y = w |x - m|^2 with m ~ N(0, I), w ~ U(1.3, 1.6) and x ~ N(m, w^2 I) in R^10: W21, section 5.1.

    Networks see x scaled to the norm sqrt(10), so that its coordinates have unit variance. The length of x, of which y
    depends too, is hidden by this: no function of the input has an error of zero.
    """

    name = "quadratics"
    description = "regression: the squared distance to a centre, other for each task, in ten dimensions (W21)"
    input_size = 10
    widths: ClassVar[tuple[float, float]] = (1.3, 1.6)

    def points(self, keys: Keys, numbers: IntArray) -> FloatArray:
        """Points (B, P, 10), normal around the centre of each task."""
        centre, width = self.parameters(keys)
        counters = _POINTS + numbers[:, None] * self.input_size + np.arange(self.input_size)
        return centre[:, None] + width[:, None, None] * _normal(keys[:, None, None], counters)

    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """Scaled squared distances (B, P) of points (B, P, 10) to the centre of each task."""
        centre, width = self.parameters(keys)
        return width[:, None] * np.square(points - centre[:, None]).sum(-1)

    def inputs(self, points: FloatArray) -> FloatArray:
        """The points at the norm sqrt(10)."""
        return points * (self.input_size**0.5 / np.linalg.norm(points, axis=-1, keepdims=True))

    def parameters(self, keys: Keys) -> tuple[FloatArray, FloatArray]:
        """Centres (B, 10) and widths (B,)."""
        return _normal(keys[:, None], 1 + np.arange(self.input_size)), _between(self.widths, keys, 0)


FAMILIES: dict[str, Family] = {family.name: family for family in (Sinusoids(), Quadratics())}


@dataclass(frozen=True)
class RegressionSplit:
    """The tasks of a family under the name of a split; another name means other tasks of the same distribution.

    It stands where a `Split` of images does. A vector of d numbers counts as an image of one pixel in d channels, which
    makes `in_channels` and `image_size` of a backbone d and 1.
    """

    name: SplitName
    family: Family
    usual_ways: ClassVar[int] = 1
    num_classes: ClassVar[int] = 1
    normalization: ClassVar[None] = None
    tasks_within_domain: ClassVar[bool] = False
    measure: ClassVar[Measure] = SQUARED_ERROR

    @property
    def dataset(self) -> str:
        """The family's name."""
        return self.family.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(d, 1, 1)."""
        return self.family.input_size, 1, 1

    def to(self, device: torch.device | str) -> RegressionSplit:
        """Itself: there is nothing to keep on a device."""
        return self


@dataclass(frozen=True)
class RegressionDataset:
    """A family where a `Dataset` of images is expected; made by ``kshot.load(name)``."""

    family: Family

    @property
    def name(self) -> str:
        """The family's name."""
        return self.family.name

    @property
    def train(self) -> RegressionSplit:
        """Tasks to train on."""
        return RegressionSplit("train", self.family)

    @property
    def val(self) -> RegressionSplit:
        """Tasks to steer training by."""
        return RegressionSplit("val", self.family)

    @property
    def test(self) -> RegressionSplit:
        """Tasks to measure on."""
        return RegressionSplit("test", self.family)

    def split(self, name: SplitName) -> RegressionSplit:
        """The split of this name: train, val, test or train+val."""
        if name not in get_args(SplitName):
            raise DataError(f"there is no split {name!r}; choose one of: {', '.join(get_args(SplitName))}")
        return RegressionSplit(name, self.family)


class RegressionSampler:
    """Draws regression tasks of K support and Q query points; every task number names the same task in every process.

    Raises ConfigError for a shape of more than one way.
    """

    def __init__(self, split: RegressionSplit, shape: TaskShape, seed: int) -> None:
        if shape.ways != 1:
            raise ConfigError(
                f"ways is {shape.ways}, but the tasks of {split.dataset} have one output and no classes; leave out ways"
            )
        self.split, self.shape, self.seed = split, shape, seed
        self._key = seeding.key(seed, "regression", split.dataset, split.name, shape.shots, shape.queries)

    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with these numbers: inputs (B, K or Q, d) and labels (B, K or Q, 1), float32, on `device`."""
        family, shots = self.split.family, self.shape.shots
        keys = self._keys(numbers)
        points = family.points(keys, np.arange(shots + self.shape.queries))
        inputs, labels = (
            torch.from_numpy(part).to(device, torch.float32)
            for part in (family.inputs(points), family.values(keys, points)[..., None])
        )
        return Episodes(
            support=inputs[:, :shots],
            support_labels=labels[:, :shots],
            query=inputs[:, shots:],
            query_labels=labels[:, shots:],
            classes=torch.zeros(len(keys), 1, dtype=torch.int64, device=device),
            keys=seeding.bits(keys, 1 << 21),
        )

    def values(self, numbers: IntArray, points: FloatArray) -> FloatArray:
        """The true functions of the tasks with these numbers at points (P, d): (B, P)."""
        keys = self._keys(numbers)
        return self.split.family.values(keys, np.broadcast_to(points, (len(keys), *points.shape)))

    def _keys(self, numbers: IntArray) -> Keys:
        return seeding.bits(self._key, np.asarray(numbers))


def _between(bounds: tuple[float, float], keys: Keys, counters: ArrayLike) -> FloatArray:
    low, high = bounds
    return low + (high - low) * seeding.uniform(keys, counters)


def _normal(keys: Keys, counters: ArrayLike) -> FloatArray:
    # away from 0, where the quantile is infinite
    return ndtri(np.maximum(seeding.uniform(keys, counters), 2.0**-54))
