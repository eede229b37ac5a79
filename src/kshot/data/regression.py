"""Regression tasks, drawn and not stored: sinusoids (Finn et al. 2017), quadratics (W21), curves, or your own.

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
from kshot.data.episodes import IntArray
from kshot.errors import ConfigError, DataError
from kshot.measures import SQUARED_ERROR, Measure

FloatArray = NDArray[np.float64]
Keys = NDArray[np.uint64]

_POINTS = 1 << 32  # counters from here on belong to the points of a task, those before to its function


class Family(ABC):
    """A distribution over functions R^d -> R, and over the points at which a task shows its function.

    A subclass sets the attributes and defines `points` and `values`; ``RegressionDataset(MyFamily())`` is then trained
    and evaluated on as any dataset. Whatever is random is a pure function of the keys, one per task, so that task
    number i is the same in every process: `uniform` and `normal` draw such numbers. Numbers of the function have the
    counters 0, 1, ..., and those of the points the counters of `point_counters`.

    Attributes
    ----------
    name
        What the family is called.
    description
        One line for ``kshot data list``.
    input_size
        d.
    bounds
        What the points lie between if d is 1, so that a picture can show the functions; None without bounds.
    kinds
        Names of the kinds of functions that the family mixes, which `kind` tells apart; they are the domains of its
        tasks.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    input_size: ClassVar[int]
    bounds: ClassVar[tuple[float, float] | None] = None
    kinds: ClassVar[tuple[str, ...]] = ("all",)

    @abstractmethod
    def points(self, keys: Keys, numbers: IntArray) -> FloatArray:
        """The points (B, P, d) with the numbers (P,) of the tasks with the keys (B,)."""

    @abstractmethod
    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """The values (B, P) of the functions of the tasks with the keys (B,) at their points (B, P, d)."""

    def inputs(self, points: FloatArray) -> FloatArray:
        """The inputs of a network for points (B, P, d); the points themselves, unless a subclass says otherwise."""
        return points

    def kind(self, keys: Keys) -> IntArray:
        """The number of the kind (B,) of the tasks with the keys (B,); 0, unless a subclass has several `kinds`."""
        return np.zeros(len(keys), np.int64)


def uniform(bounds: tuple[float, float], keys: Keys, counters: ArrayLike) -> FloatArray:
    """Numbers uniform between the bounds, one for every pair of a key and a counter (broadcast against each other)."""
    low, high = bounds
    return low + (high - low) * seeding.uniform(keys, counters)


def normal(keys: Keys, counters: ArrayLike) -> FloatArray:
    """Standard normal numbers, one for every pair of a key and a counter (broadcast against each other)."""
    # away from 0, where the quantile is infinite
    return ndtri(np.maximum(seeding.uniform(keys, counters), 2.0**-54))


def point_counters(numbers: IntArray, input_size: int = 1) -> IntArray:
    """The counters that belong to points with these numbers (P,): (P, input_size)."""
    return _POINTS + numbers[:, None] * input_size + np.arange(input_size)


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
        return uniform(self.bounds, keys[:, None, None], point_counters(numbers))

    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """The sine waves (B, P) at points (B, P, 1)."""
        amplitude, phase = self.parameters(keys)
        return amplitude[:, None] * np.sin(points[..., 0] - phase[:, None])

    def parameters(self, keys: Keys) -> tuple[FloatArray, FloatArray]:
        """Amplitudes (B,) and phases (B,)."""
        return uniform(self.amplitudes, keys, 0), uniform(self.phases, keys, 1)


class Quadratics(Family):
    """y = w |x - m|^2 with m ~ N(0, I), w ~ U(1.3, 1.6) and x ~ N(m, w^2 I) in R^10: W21, section 5.1.

    Networks see x scaled to the norm sqrt(10), so that its coordinates have unit variance. This hides the length of x,
    on which y depends too: no function of the input has an error of zero.
    """

    name = "quadratics"
    description = "regression: the squared distance to the centre of each task, in ten dimensions (W21)"
    input_size = 10
    widths: ClassVar[tuple[float, float]] = (1.3, 1.6)

    def points(self, keys: Keys, numbers: IntArray) -> FloatArray:
        """Points (B, P, 10), normal around the centre of each task."""
        centre, width = self.parameters(keys)
        counters = point_counters(numbers, self.input_size)
        return centre[:, None] + width[:, None, None] * normal(keys[:, None, None], counters)

    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """Scaled squared distances (B, P) of points (B, P, 10) to the centre of each task."""
        centre, width = self.parameters(keys)
        return width[:, None] * np.square(points - centre[:, None]).sum(-1)

    def inputs(self, points: FloatArray) -> FloatArray:
        """The points at the norm sqrt(10)."""
        return points * (self.input_size**0.5 / np.linalg.norm(points, axis=-1, keepdims=True))

    def parameters(self, keys: Keys) -> tuple[FloatArray, FloatArray]:
        """Centres (B, 10) and widths (B,)."""
        return normal(keys[:, None], 1 + np.arange(self.input_size)), uniform(self.widths, keys, 0)


class Curves(Family):
    """A sine wave, a line or a parabola, each equally likely: Vuorio et al. (2019, MMAML), section 5.1, without noise.

    y = a sin(w x + b) with a ~ U(0.1, 5), w ~ U(0.5, 2), b ~ U(0, 2 pi); y = a x + b with a, b ~ U(-3, 3); or
    y = a (x - c)^2 + b with |a| ~ U(0.02, 0.15) of either sign and b, c ~ U(-3, 3); x ~ U(-5, 5).
    """

    name = "curves"
    description = "regression: each task is a sine wave, a line or a parabola (Vuorio et al. 2019)"
    input_size = 1
    kinds = ("sine wave", "line", "parabola")
    bounds = (-5.0, 5.0)

    def points(self, keys: Keys, numbers: IntArray) -> FloatArray:
        """Points (B, P, 1), uniform between the bounds."""
        return uniform(self.bounds, keys[:, None, None], point_counters(numbers))

    def values(self, keys: Keys, points: FloatArray) -> FloatArray:
        """The curves (B, P) at points (B, P, 1)."""
        x, kind = points[..., 0], self.kind(keys)[:, None]
        first, second, third = (seeding.uniform(keys, counter)[:, None] for counter in (1, 2, 3))
        wave = (0.1 + 4.9 * first) * np.sin((0.5 + 1.5 * second) * x + 2 * np.pi * third)
        slope, height, centre = (6 * share - 3 for share in (first, second, third))
        steepness = np.where(first < 0.5, -1, 1) * (0.02 + 0.13 * np.abs(2 * first - 1))
        return np.select([kind == 0, kind == 1], [wave, slope * x + height], steepness * (x - centre) ** 2 + height)

    def kind(self, keys: Keys) -> IntArray:
        """Which of `kinds` each task is, (B,)."""
        return (len(self.kinds) * seeding.uniform(keys, 0)).astype(np.int64)


FAMILIES: dict[str, Family] = {family.name: family for family in (Sinusoids(), Quadratics(), Curves())}


@dataclass(frozen=True, repr=False)
class RegressionSplit:
    """The tasks of a family under the name of a split; another name means other tasks of the same distribution.

    It takes the place of a `Split` of images. A vector of d numbers counts as an image of one pixel in d channels,
    which makes `in_channels` and `image_size` of a backbone d and 1.

    Parameters
    ----------
    name
        "train", "val", "test" or "train+val".
    family
        The distribution over functions.
    """

    name: SplitName
    family: Family
    usual_ways: ClassVar[int] = 1
    num_classes: ClassVar[int] = 1
    normalization: ClassVar[None] = None
    tasks_within_domain: ClassVar[bool] = False
    checksum: ClassVar[None] = None
    measure: ClassVar[Measure] = SQUARED_ERROR

    def __repr__(self) -> str:
        return f"RegressionSplit {self.dataset}/{self.name}: {_family_text(self.family)}"

    @property
    def dataset(self) -> str:
        """The family's name."""
        return self.family.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(d, 1, 1)."""
        return self.family.input_size, 1, 1

    def to(self, device: torch.device | str) -> RegressionSplit:
        """The split itself, for any `device`: there is nothing to keep there."""
        return self


@dataclass(frozen=True, repr=False)
class RegressionDataset:
    """A family in the place of a `Dataset` of images; ``kshot.load(name)`` makes one of a family that kshot has.

    Parameters
    ----------
    family
        The distribution over functions, one of your own included.

    Raises
    ------
    ConfigError
        If the family is a class in the place of an instance, or lacks one of the attributes of `Family`.
    """

    family: Family

    def __post_init__(self) -> None:
        if not isinstance(self.family, Family):
            is_class = isinstance(self.family, type) and issubclass(self.family, Family)
            advice = f"write RegressionDataset({self.family.__name__}())" if is_class else "derive a class from Family"
            raise ConfigError(f"a regression dataset takes an instance of Family, not {self.family!r}; {advice}")
        missing = [name for name in ("name", "description", "input_size") if not hasattr(self.family, name)]
        if missing:
            raise ConfigError(f"{type(self.family).__name__} has no {', '.join(missing)}; set it in the class body")

    def __repr__(self) -> str:
        return f"RegressionDataset {self.name!r}: {_family_text(self.family)}\n  {self.family.description}"

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
        """Tasks to validate on."""
        return RegressionSplit("val", self.family)

    @property
    def test(self) -> RegressionSplit:
        """Tasks to measure on."""
        return RegressionSplit("test", self.family)

    def split(self, name: SplitName) -> RegressionSplit:
        """The split of this `name`: train, val, test or train+val."""
        if name not in get_args(SplitName):
            raise DataError(f"there is no split {name!r}; choose one of: {', '.join(get_args(SplitName))}")
        return RegressionSplit(name, self.family)


def _family_text(family: Family) -> str:
    return f"functions of {family.input_size} input{'s' if family.input_size > 1 else ''}, drawn as they are needed"
