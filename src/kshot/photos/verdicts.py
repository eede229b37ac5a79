"""What is thought of each example by what was learnt without it: mislabelled and odd photographs stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kshot.photos.estimate import LeftOut


@dataclass(frozen=True)
class ExampleVerdict:
    """What was said of an example when it was left out.

    Attributes
    ----------
    number
        Its place among the examples.
    name
        Its file, or "example 3".
    label
        The class that it was given as.
    predicted
        The class that it was taken for; None if its class has no other example, and it was never left out.
    probability
        Calibrated probability of its own class, 0..1; None likewise.
    """

    number: int
    name: str
    label: str
    predicted: str | None
    probability: float | None

    @property
    def agrees(self) -> bool:
        """Whether it was taken for what it was given as, or could not be tried."""
        return self.predicted in (None, self.label)

    def __str__(self) -> str:
        if self.probability is None:
            return f"{self.name}: the only example of {self.label}"
        said = "" if self.agrees else f", looks like {self.predicted}"
        return f"{self.name}: {self.label} with {100 * self.probability:.0f} %{said}"


def verdicts(
    left_out: LeftOut | None,
    labels: Sequence[int],
    names: Sequence[str],
    classes: Sequence[object],
    *,
    temperature: float,
) -> list[ExampleVerdict]:
    """The verdict on each example, the least probable first.

    Parameters
    ----------
    left_out
        What left-out examples got.
    labels, names
        Class and name of each example, (S,).
    classes
        The N classes.
    temperature
        What scores are divided by.
    """
    said: dict[int, tuple[float, int]] = {}
    if left_out is not None:
        logs = (left_out.scores.double() / temperature).log_softmax(1)
        count = torch.zeros(len(labels), dtype=torch.float64).index_add_(
            0, left_out.examples, torch.ones(len(left_out.examples), dtype=torch.float64)
        )
        total = torch.zeros(len(labels), logs.shape[1], dtype=torch.float64).index_add_(0, left_out.examples, logs)
        mean = (total / count.clamp(min=1)[:, None]).softmax(1)
        said = {row: (float(mean[row, labels[row]]), int(mean[row].argmax())) for row in count.nonzero()[:, 0].tolist()}
    results = []
    for row, (label, name) in enumerate(zip(labels, names)):
        probability, best = said.get(row, (None, None))
        results.append(
            ExampleVerdict(row, name, str(classes[label]), None if best is None else str(classes[best]), probability)
        )
    return sorted(results, key=lambda each: 2.0 if each.probability is None else each.probability)
