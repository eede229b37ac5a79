"""Confidence intervals: of means over tasks or repetitions, and of the exponents of power laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kshot.errors import DataError


def interval(values: NDArray[np.float64]) -> float:
    """Half-width of the 95% confidence interval of a mean, by Student's t; nan for fewer than two values."""
    count = len(values)
    if count < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))


def mean_and_ci95(values: ArrayLike) -> tuple[float, float]:
    """Mean of independent repetitions and the half-width of its 95% interval (Student's t; nan for one repetition)."""
    numbers = np.asarray(values, np.float64).ravel()
    if len(numbers) < 2:
        return float(numbers.mean()), float("nan")
    return float(numbers.mean()), float(stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers))


@dataclass(frozen=True)
class PowerLaw:
    """``factor * x ** exponent``, with the half-width of the exponent's 95% interval."""

    exponent: float
    ci95: float
    factor: float

    def __str__(self) -> str:
        return f"exponent {self.exponent:.2f} ± {self.ci95:.2f}"


def fit_power_law(x: ArrayLike, curves: ArrayLike) -> PowerLaw:
    """Least squares on logarithms, an exponent a curve; the interval is over curves, or over a single one's residuals.

    x: positive numbers (P,), P >= 3.
    curves: positive numbers, (P,), or (R, P) for R independent repetitions.
    Raises DataError where a number is not positive or there are fewer than three points.
    """
    log_x, log_y = _logarithms(x), np.atleast_2d(_logarithms(curves))
    if len(log_x) < 3:
        raise DataError(f"a power law needs three points at least, not {len(log_x)}")
    fits: Sequence = [stats.linregress(log_x, curve) for curve in log_y]
    factor = float(np.exp(np.mean([fit.intercept for fit in fits])))
    if len(fits) == 1:
        half_width = float(stats.t.ppf(0.975, len(log_x) - 2) * fits[0].stderr)
        return PowerLaw(float(fits[0].slope), half_width, factor)
    exponent, half_width = mean_and_ci95([fit.slope for fit in fits])
    return PowerLaw(exponent, half_width, factor)


def _logarithms(values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, np.float64)
    if not (numbers > 0).all():
        raise DataError("a power law can be fitted to positive numbers only; some are zero, negative or nan")
    return np.log(numbers)
