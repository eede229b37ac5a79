"""What is measured of a task: accuracy, or the squared error of a regression; and how such a number is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# where BatchNorm statistics come from at test: the whole query set, the support set plus one query image, or training
Statistics = Literal["running", "transductive", "inductive"]

# how the query images of a task are spread over its classes: equally, by Dirichlet proportions, or one image in all
QueryBalance = Literal["balanced", "dirichlet", "single"]


@dataclass(frozen=True)
class Measure:
    """One number per task, averaged over tasks.

    Attributes
    ----------
    name
        In files and columns.
    title
        What a table or an axis calls it.
    scale, digits, unit
        How a value is written: multiplied, rounded, and with its unit.
    sign
        1 if larger values are better, -1 if smaller ones are.
    """

    name: str
    title: str
    scale: int
    digits: int
    unit: str
    sign: Literal[1, -1]

    def text(self, mean: float, ci95: float, *, signed: bool = False) -> str:
        """A mean and the half-width of its 95% interval, without the unit; a nan half-width is "no interval".

        Parameters
        ----------
        mean, ci95
            As measured, not yet scaled.
        signed
            Write the sign of a difference, also of a positive one.
        """
        value = f"{self.scale * mean:{'+' if signed else ''}.{self.digits}f}"
        if math.isnan(ci95) and not math.isnan(mean):
            return f"{value} (no interval)"
        return f"{value} ± {self.scale * ci95:.{self.digits}f}"


ACCURACY = Measure("accuracy", "Accuracy in percent", scale=100, digits=2, unit=" %", sign=1)
SQUARED_ERROR = Measure("squared_error", "Mean squared error", scale=1, digits=4, unit="", sign=-1)
MEASURES = {measure.name: measure for measure in (ACCURACY, SQUARED_ERROR)}
