"""Several evaluations, as a person reads them."""

from __future__ import annotations

from kshot.evaluation.results import Evaluation


class Evaluations(list[Evaluation]):
    """A list of evaluations that is printed with one below the other, without brackets and commas."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no evaluations"
