"""What is measured of a task: accuracy, or the squared error of a regression; and how such a number is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# where BatchNorm statistics come from at test: the whole query set, the support set plus one query image, or training
Statistics = Literal["running", "transductive", "inductive"]


@dataclass(frozen=True)
class Measure:
    """One number a task, averaged over tasks.

    name: in files and columns.
    title: what a table or an axis calls it.
    scale, digits, unit: how a value is written: multiplied, rounded, and with its unit.
    sign: 1 where larger values are better, -1 where smaller ones are.
    """

    name: str
    title: str
    scale: int
    digits: int
    unit: str
    sign: Literal[1, -1]

    def text(self, mean: float, ci95: float, signed: bool = False) -> str:
        """A mean, or with `signed` a difference, and the half-width of its interval, without the unit."""
        return f"{self.scale * mean:{'+' if signed else ''}.{self.digits}f} ± {self.scale * ci95:.{self.digits}f}"


ACCURACY = Measure("accuracy", "Accuracy in percent", scale=100, digits=2, unit=" %", sign=1)
SQUARED_ERROR = Measure("squared_error", "Mean squared error", scale=1, digits=4, unit="", sign=-1)
MEASURES = {measure.name: measure for measure in (ACCURACY, SQUARED_ERROR)}
