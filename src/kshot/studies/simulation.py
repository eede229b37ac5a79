"""The schedule of a study on many workers, from what its cells cost here."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from kshot.errors import ConfigError, check_choice
from kshot.studies.engines import ENGINES, EngineOptions
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
    note
        What the engine adds; empty if nothing.
    """

    workers: int
    cells: int
    seconds: float
    work: float
    longest: str
    longest_seconds: float
    note: str = ""

    @property
    def idle(self) -> float:
        """The share of the workers' time in which they have nothing to do, 0..1."""
        return 1 - self.work / (self.workers * self.seconds)

    def __str__(self) -> str:
        return (
            f"{self.cells} cells on {self.workers} workers: {duration(self.seconds)}, workers idle for "
            f"{100 * self.idle:.0f} % of that; {duration(self.work)} of work; the longest cell is {self.longest}, "
            f"{duration(self.longest_seconds)}{self.note and f'. {self.note}'}"
        )

    __repr__ = __str__


def simulate(plan: Plan, *, engine: str = "local", options: EngineOptions | None = None) -> Simulation:
    """Start the longest cells first, each on the worker that is free first, as the scheduler does.

    Parameters
    ----------
    plan
        With the cost of at least one cell.
    engine
        "local"; "ray", whose note is on copies of checkpoints; or "slurm", whose note is on jobs that are queued again.
    options
        `workers`, None for one; `seconds_between_copies` of Ray, and `hours` of SLURM.

    Raises
    ------
    ConfigError
        If the plan has no costs, or there is no such engine.
    """
    check_choice("engine", engine, tuple(ENGINES))
    options = options or EngineOptions()
    workers = 1 if options.workers is None else options.workers
    costs = {cell.cell.name: cell.seconds for cell in plan.cells if cell.seconds is not None}
    if not costs:
        raise ConfigError(f"no cost of {plan.name} is known; plan it with trials")
    free = [0.0] * workers
    for seconds in sorted(costs.values(), reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    longest = max(costs, key=lambda name: costs[name])
    note = {"local": "", "ray": _copies(plan, workers, options), "slurm": _queued(list(costs.values()), options)}[
        engine
    ]
    return Simulation(workers, len(costs), max(free), sum(costs.values()), longest, costs[longest], note)


def _copies(plan: Plan, workers: int, options: EngineOptions) -> str:
    """What checkpoints that come back add up to, if the largest cells run at the same time and save all the time."""
    sizes = sorted((cell.costs.disk for cell in plan.cells if cell.costs is not None), reverse=True)
    rate = sum(sizes[:workers]) / options.seconds_between_copies
    return (
        f"Checkpoints that come back every {options.seconds_between_copies:g} s are at most {rate:.3g} MiB/s through "
        "the machine of the study"
    )


def _queued(seconds: list[float], options: EngineOptions) -> str:
    """How many jobs reach their time limit."""
    jobs = [math.ceil(each / (3600 * options.hours)) for each in seconds]
    longer = sum(count > 1 for count in jobs)
    return f"With jobs of {options.hours:g} h, {longer} cells are queued again, {sum(jobs)} jobs in all"
