"""The schedule of a study on many workers, from what its cells cost here."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from kshot.errors import ConfigError, check_positive
from kshot.studies.plan import Plan, duration


@dataclass(frozen=True, repr=False)
class Simulation:
    """What a schedule would take.

    Attributes
    ----------
    workers
        How many.
    cells
        Whose cost is known.
    seconds
        Until the last cell ends.
    work
        Seconds of all cells together.
    longest
        The name of the longest cell.
    longest_seconds
        What it takes, which no number of workers shortens.
    """

    workers: int
    cells: int
    seconds: float
    work: float
    longest: str
    longest_seconds: float

    @property
    def idle(self) -> float:
        """The share of the workers' time in which they have nothing to do, 0..1."""
        return 1 - self.work / (self.workers * self.seconds)

    def __str__(self) -> str:
        return (
            f"{self.cells} cells on {self.workers} workers: {duration(self.seconds)}, workers idle for "
            f"{100 * self.idle:.0f} % of that; {duration(self.work)} of work; the longest cell is {self.longest}, "
            f"{duration(self.longest_seconds)}"
        )

    __repr__ = __str__


def simulate(plan: Plan, *, workers: int) -> Simulation:
    """Start the longest cells first, each on the worker that is free first, as the scheduler does.

    Raises ConfigError if the plan has no costs, or there are no workers.
    """
    check_positive(workers=workers)
    costs = {cell.cell.name: cell.seconds for cell in plan.cells if cell.seconds is not None}
    if not costs:
        raise ConfigError(f"no cost of {plan.name} is known; plan it with trials")
    free = [0.0] * workers
    for seconds in sorted(costs.values(), reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    longest = max(costs, key=lambda name: costs[name])
    return Simulation(workers, len(costs), max(free), sum(costs.values()), longest, costs[longest])
