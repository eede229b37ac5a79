"""95% confidence intervals: of means over tasks or repetitions, and of the exponents of power laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from kshot.errors import DataError


class MeanInterval(NamedTuple):
    """A mean with its 95% confidence interval, ``mean - ci95`` to ``mean + ci95``.

    Attributes
    ----------
    mean
        Mean of the values.
    ci95
        Half-width of the interval; nan if there are fewer than two values.
    """

    mean: float
    ci95: float


def mean_interval(values: ArrayLike) -> MeanInterval:
    """Mean of independent values and the half-width of its 95% confidence interval, by Student's t.

    Parameters
    ----------
    values
        One number per task or repetition, of any shape.

    Returns
    -------
    MeanInterval
        ``(mean, ci95)``; the half-width ``ci95`` is nan for a single value, which has no spread.
    """
    numbers = np.asarray(values, np.float64).ravel()
    count = len(numbers)
    if count < 2:
        return MeanInterval(float(numbers.mean()), float("nan"))
    half_width = _student(count - 1) * numbers.std(ddof=1) / np.sqrt(count)
    return MeanInterval(float(numbers.mean()), float(half_width))


def with_interval(mean: float, ci95: float, digits: str, *, margin_digits: str | None = None) -> str:
    """A mean with the half-width of its interval, ``4.72 ± 0.31``; without one, ``4.72``, if the half-width is nan.

    Parameters
    ----------
    mean, ci95
        As `mean_interval` returns them.
    digits
        How to write the mean, such as ".2f".
    margin_digits
        How to write the half-width; None for as the mean, but without a sign.
    """
    return f"{mean:{digits}}" + ("" if math.isnan(ci95) else f" ± {ci95:{margin_digits or digits.lstrip('+')}}")


@dataclass(frozen=True)
class PowerLaw:
    """``factor * x ** exponent``.

    Attributes
    ----------
    exponent
        Slope in logarithmic axes.
    ci95
        Half-width of the exponent's 95% confidence interval.
    factor
        Value at ``x = 1``.
    """

    exponent: float
    ci95: float
    factor: float

    def __str__(self) -> str:
        return f"exponent {self.exponent_text}"

    @property
    def exponent_text(self) -> str:
        """The exponent with its interval, ``-0.98 ± 0.05``."""
        return with_interval(self.exponent, self.ci95, ".2f")


def fit_power_law(x: ArrayLike, curves: ArrayLike) -> PowerLaw:
    """Fit a power law by least squares on logarithms, one exponent per curve.

    Parameters
    ----------
    x
        Positive numbers (P,), at least three.
    curves
        Positive numbers: (R, P) for R independent repetitions, whose exponents the interval is over; or (P,) for a
        single curve, whose interval comes from its residuals.

    Returns
    -------
    PowerLaw
        The mean exponent with its interval.

    Raises
    ------
    DataError
        If a number is not positive or there are fewer than three points.
    """
    from scipy.stats import linregress  # takes half a second to import, which only fits need

    log_x, log_y = _logarithms(x), np.atleast_2d(_logarithms(curves))
    if len(log_x) < 3:
        raise DataError(f"a power law needs at least three points, not {len(log_x)}; give more")
    fits: Sequence = [linregress(log_x, curve) for curve in log_y]
    factor = float(np.exp(np.mean([fit.intercept for fit in fits])))
    if len(fits) == 1:
        half_width = float(_student(len(log_x) - 2) * fits[0].stderr)
        return PowerLaw(float(fits[0].slope), half_width, factor)
    exponent, half_width = mean_interval([fit.slope for fit in fits])
    return PowerLaw(exponent, half_width, factor)


def _logarithms(values: ArrayLike) -> np.ndarray:
    """Natural logarithms; DataError if a value has none."""
    numbers = np.asarray(values, np.float64)
    if not (numbers > 0).all():
        raise DataError("a power law fits positive numbers only, but some are zero, negative or nan; leave them out")
    return np.log(numbers)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values of several tests, corrected by Holm's step-down procedure (1979).

    A test whose corrected value is below 0.05 is significant; the chance that any true null hypothesis is rejected is
    then at most 0.05 over all of them.

    Parameters
    ----------
    p_values
        (tests,), each in 0..1.

    Returns
    -------
    NDArray
        (tests,), in the same order.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _student(degrees: int) -> float:
    """How many standard errors a 95% interval reaches to each side, by Student's t with so many degrees of freedom."""
    return float(stdtrit(degrees, 0.975))
