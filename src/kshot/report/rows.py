"""A row of a table: what one learner reached, and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kshot.evaluation.results import Evaluation
from kshot.recipes import Published


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """One learner in a table.

    Attributes
    ----------
    name
        What the row is called, the folder of a run for instance.
    results
        One evaluation per number of shots.
    published
        The published value of each result, None if there is none.
    published_domains
        For each result the published values of the domains of a mixture.
    seconds
        How long training took; None if nothing was trained or the time is unknown.
    """

    name: str
    results: Sequence[Evaluation]
    published: Sequence[Published | None] = ()
    published_domains: Sequence[Mapping[str, Published]] = ()
    seconds: float | None = None

    def __repr__(self) -> str:
        numbers = [
            f"{result.protocol.shots}-shot {result.measure.text(result.mean, result.ci95)}{result.measure.unit}"
            for result in self.results
        ]
        return f"Row({self.name!r}: {', '.join(numbers)})"
