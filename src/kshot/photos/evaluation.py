"""What a classifier makes of photographs whose classes are known: accuracy, each class, confusions, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from kshot.files import write_csv
from kshot.photos.calibration import expected_calibration_error
from kshot.photos.estimate import percent, wilson


@dataclass(frozen=True)
class ClassResult:
    """How one class was recognised.

    Attributes
    ----------
    name
        The class.
    images
        Photographs of it.
    recall
        The share of them that were recognised, 0..1; nan without one.
    precision
        The share of photographs taken for it that were of it, 0..1; nan if there were none.
    low, high
        The 95% Wilson interval of the recall.
    """

    name: str
    images: int
    recall: float
    precision: float
    low: float
    high: float


@dataclass(frozen=True)
class Mistake:
    """A photograph that was taken for another class.

    Attributes
    ----------
    name
        Of the photograph.
    label, predicted
        Its class, and what it was taken for.
    probability, probability_of_label
        The calibrated probabilities of what it was taken for and of its class, 0..1.
    """

    name: str
    label: str
    predicted: str
    probability: float
    probability_of_label: float

    def __str__(self) -> str:
        return f"{self.name}: {self.label}, taken for {self.predicted} with {100 * self.probability:.0f} %"


@dataclass(frozen=True, eq=False)
class PhotoEvaluation:
    """The answers to M photographs of known classes.

    Attributes
    ----------
    accuracy, low, high
        The share that is right, 0..1, and its 95% Wilson interval.
    calibration_error
        Expected calibration error, 0..1.
    classes
        One result per class of the classifier.
    confusion
        (N, N) how many photographs of the class of a row were taken for the class of a column.
    mistakes
        The worst first: what was said with the largest probability.
    """

    accuracy: float
    low: float
    high: float
    calibration_error: float
    classes: Sequence[ClassResult]
    confusion: NDArray[np.int64]
    mistakes: Sequence[Mistake]

    def __str__(self) -> str:
        return f"{percent(self.accuracy, self.low, self.high)} of {self.confusion.sum()} photographs"

    def save(self, folder: Path | str) -> list[Path]:
        """Write confusion.csv, confusion.png, classes.csv and mistakes.csv into `folder`; returns their paths."""
        from kshot.report import pictures

        folder, names = Path(folder), [each.name for each in self.classes]
        confusion = [{"class": name, **dict(zip(names, row.tolist()))} for name, row in zip(names, self.confusion)]
        write_csv(folder / "confusion.csv", confusion, columns=["class", *names])
        write_csv(folder / "classes.csv", [_rounded(each) for each in self.classes])
        columns = list(Mistake.__dataclass_fields__)
        write_csv(folder / "mistakes.csv", [_rounded(each) for each in self.mistakes], columns=columns)
        picture = pictures.confusion_picture(self.confusion, names, title=f"Accuracy {self}")
        pictures.save(picture, folder / "confusion.png")
        return [folder / name for name in ("confusion.csv", "confusion.png", "classes.csv", "mistakes.csv")]


def _rounded(line: ClassResult | Mistake) -> dict[str, Any]:
    """A line of a table, shares to four digits."""
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(line).items()}


def evaluated(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], names: Sequence[str], classes: Sequence[Any]
) -> PhotoEvaluation:
    """The evaluation of probabilities (M, N) of photographs with these labels (M,) and names."""
    best = probabilities.argmax(1)
    confusion = confusion_matrix(labels, best, labels=np.arange(len(classes))).astype(np.int64)
    right, given, taken = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    results = []
    for way, name in enumerate(map(str, classes)):
        recall = right[way] / given[way] if given[way] else float("nan")
        precision = right[way] / taken[way] if taken[way] else float("nan")
        interval = wilson(recall, int(given[way])) if given[way] else (0.0, 1.0)
        results.append(ClassResult(name, int(given[way]), float(recall), float(precision), *interval))
    wrong = np.flatnonzero(best != labels)
    wrong = wrong[(-probabilities[wrong, best[wrong]]).argsort(kind="stable")]
    mistakes = [
        Mistake(
            names[row],
            str(classes[labels[row]]),
            str(classes[best[row]]),
            float(probabilities[row, best[row]]),
            float(probabilities[row, labels[row]]),
        )
        for row in wrong
    ]
    accuracy = float((best == labels).mean())
    error = expected_calibration_error(probabilities, labels)
    return PhotoEvaluation(accuracy, *wilson(accuracy, len(labels)), error, results, confusion, mistakes)
