"""How many photographs per class are needed: the accuracy that fewer examples gave, extrapolated to more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, xlogy

from kshot.errors import ConfigError
from kshot.photos.estimate import stratified_rounds, wilson
from kshot.photos.examples import Examples
from kshot.photos.heads import balanced_head
from kshot.solvers import HeadAdaptation

_DRAWS = 20
_SHOTS = 1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40
_MOST = 1000  # photographs per class to which the curve is extrapolated
_SHOWN = 40  # points of the curve between 1 and that
# Slope of the log odds of being right over the log of shots; mean and standard deviation over tasks: 0.50 and 0.17 on
# CIFAR-FS validation classes, 0.96 and 0.33 on butterflies, 0.52 and 0.28 on playing cards.
_SLOPE, _SLOPE_DEVIATION = 0.65, 0.3


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy that was seen, or is expected, with so many examples per class.

    Attributes
    ----------
    shots
        Examples per class.
    accuracy, low, high
        The accuracy and the ends of its 95% interval, 0..1: Wilson's of what was seen.
    """

    shots: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ShotsNeeded:
    """How many photographs per class give an accuracy.

    Attributes
    ----------
    target
        The accuracy, 0..1.
    shots
        The median of what the examples let expect; None if it is more than 1000.
    low, high
        The 95% interval; None likewise.
    curve
        The accuracy seen with fewer examples.
    expected
        The accuracy that the curve lets expect, its median and its 95% interval, with up to 1000 examples.
    """

    target: float
    shots: int | None
    low: int | None
    high: int | None
    curve: Sequence[CurvePoint]
    expected: Sequence[CurvePoint]

    def __str__(self) -> str:
        return (
            f"{100 * self.target:.0f} % need {_said(self.shots)} photograph{'' if self.shots == 1 else 's'} per class "
            f"(95% interval {_said(self.low)} to {_said(self.high)})"
        )

    def save(self, path: Path | str) -> Path:
        """Draw the accuracy against photographs per class, as it was seen and as it is expected; returns the path.

        Parameters
        ----------
        path
            The PNG file to write.
        """
        from kshot.report import curves, pictures

        seen, expected = (
            {name: np.asarray([getattr(point, name) for point in points]) for name in CurvePoint.__dataclass_fields__}
            for points in (self.curve, self.expected)
        )
        return pictures.save(curves.shots_picture(seen, expected, self.target, str(self)), Path(path))


def _said(shots: int | None) -> str:
    return f"more than {_MOST}" if shots is None else str(shots)


def check_target(target: float, ways: int) -> None:
    """ConfigError unless an accuracy can be aimed at."""
    if not 1 / ways < target < 1:
        raise ConfigError(
            f"target is {target}, but with {ways} classes an accuracy is above {1 / ways:.2g} by chance, and below 1: "
            "give one between, such as 0.95"
        )


@torch.no_grad()
def accuracy_curve(
    adaptation: HeadAdaptation, examples: Examples, ways: int, *, seed: int, draws: int = _DRAWS
) -> list[CurvePoint]:
    """The accuracy with 1, 2, 3, ... examples per class, as far as half of the classes have that many to learn from.

    In each draw, one series per class is left out and asked for (one example, of a class with a single series), and
    the head sees `shots` of the other examples, or as many as there are.

    Parameters
    ----------
    adaptation
        Fits the heads.
    examples
        The examples of all classes.
    ways
        N, the number of classes.
    seed
        Names the draws.
    draws
        Heads per point.

    Returns
    -------
    list of CurvePoint
        Empty if no class has two examples.
    """
    labels, series = examples.labels.numpy(), examples.series.numpy()
    rounds = stratified_rounds(labels, series, seed, draws=draws)[:draws]
    if not rounds:
        return []
    generator = np.random.default_rng(seed)
    left = np.median([np.bincount(np.delete(labels, rows), minlength=ways) for rows in rounds])
    points = []
    for shots in (shots for shots in _SHOTS if shots <= max(left, 1)):
        right: dict[int, list[float]] = {}
        for rows in rounds:
            some = torch.from_numpy(_drawn(labels, rows, shots, generator))
            asked = torch.from_numpy(rows)
            head = balanced_head(adaptation, examples.features[None, some], examples.labels[None, some], ways)
            best = head.scores(examples.plain[None, asked])[0].argmax(1)
            for label, hit in zip(labels[rows], (best == examples.labels[asked]).tolist()):
                right.setdefault(label, []).append(hit)
        accuracy = float(np.mean([np.mean(hits) for hits in right.values()]))
        tried = len(np.unique(series[np.isin(labels, list(right))]))
        points.append(CurvePoint(shots, accuracy, *wilson(accuracy, tried)))
    return points


def _drawn(
    labels: NDArray[np.int64], without: NDArray[np.int64], shots: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """At most `shots` rows per class, none of them in `without`."""
    order = generator.permutation(np.setdiff1d(np.arange(len(labels)), without))
    place = np.empty(len(order), np.int64)  # of each row among those of its class
    by_class = labels[order].argsort(kind="stable")
    starts = np.searchsorted(labels[order][by_class], labels[order][by_class])
    place[by_class] = np.arange(len(order)) - starts
    return np.sort(order[place < shots])


def needed(curve: Sequence[CurvePoint], examples: int, target: float, ways: int) -> ShotsNeeded:
    """How many shots reach `target`, if the log odds of being right grow linearly with the logarithm of shots.

    The odds are those above chance. The slope has a prior from other data, since a few examples say little about it;
    the posterior is summed over a grid of both coefficients.

    Parameters
    ----------
    curve
        What `accuracy_curve` found.
    examples
        How many different examples were tried.
    target
        The accuracy, above 1/N and below 1.
    ways
        N, the number of classes.
    """
    level, slope = np.meshgrid(np.linspace(-5, 9, 281), np.linspace(0.05, 2.5, 99), indexing="ij")
    log_posterior = -((slope - _SLOPE) ** 2) / (2 * _SLOPE_DEVIATION**2)
    chance = 1 / ways
    for point in curve:
        share = chance + (1 - chance) * expit(level + slope * np.log(point.shots))
        trials = examples / len(curve)  # every point tells of the same examples
        log_posterior += trials * (xlogy(point.accuracy, share) + xlogy(1 - point.accuracy, 1 - share))
    posterior = np.exp(log_posterior - log_posterior.max()).ravel()
    log_shots = ((logit((target - chance) / (1 - chance)) - level) / slope).ravel()
    middle, low, high = (
        None if value > np.log(_MOST) else max(1, int(np.ceil(np.exp(value) - 1e-9)))
        for value in _quantiles(log_shots, posterior)
    )
    shown = sorted({round(shots) for shots in np.geomspace(1, _MOST, _SHOWN)})
    rates = [(chance + (1 - chance) * expit(level + slope * np.log(shots))).ravel() for shots in shown]
    expected = [CurvePoint(shots, *_quantiles(rate, posterior)) for shots, rate in zip(shown, rates)]
    return ShotsNeeded(target, middle, low, high, curve, expected)


def _quantiles(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """The median of weighted values, and the ends of their 95% interval."""
    order = values.argsort()
    places = np.searchsorted(weights[order].cumsum() / weights.sum(), (0.5, 0.025, 0.975))
    middle, low, high = values[order][places]
    return float(middle), float(low), float(high)
