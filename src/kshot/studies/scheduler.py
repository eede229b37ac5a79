"""The order of cells, and what happens to one that fails: the same for every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kshot.studies.cell import DONE, OTHER_VERSION, STOPPED, TAKEN
from kshot.studies.engines.base import Ended, Engine, Job

_WAIT = 0.2  # seconds between looks at what runs


@dataclass
class Outcome:
    """What became of the cells of one call.

    Attributes
    ----------
    done, failed, shared
        Names of cells that were finished, that failed, and that another runner has.
    refused
        Places that were refused, and why.
    """

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], engine: Engine, *, retries: int, say: Callable[[str], None] = print, tick: Callable[[], None]
) -> Outcome:
    """Run all jobs, in the order in which they are given, as many at once as the engine has room for.

    Parameters
    ----------
    jobs
        The cells, those that take longest first.
    engine
        Runs them.
    retries
        How often a cell is tried again that was killed, lost its machine or met a full disk. A failure that would
        repeat itself (a loss that diverges) is not tried again.
    say
        Called with a line for each cell that ends.
    tick
        Called between looks.
    """
    waiting, outcome = list(jobs), Outcome()
    running: dict[str, Job] = {}
    attempts: dict[str, int] = {}
    while waiting or running:
        for job in list(waiting):
            if engine.start(job):
                waiting.remove(job)
                running[job.folder.name] = job
        over = engine.ended()
        for ended in over:
            job = running.pop(ended.name)
            again = _settle(job, ended, outcome, attempts, retries, say)
            if again is not None:
                waiting.append(again)
        tick()
        if not over:
            time.sleep(_WAIT)
    return outcome


def _settle(
    job: Job, ended: Ended, outcome: Outcome, attempts: dict[str, int], retries: int, say: Callable[[str], None]
) -> Job | None:
    """Record how a process ended; returns the job if it is to be tried again."""
    name = ended.name
    if ended.code == DONE:
        outcome.done.append(name)
        say(f"done     {name}")
        return None
    if ended.code == TAKEN:
        outcome.shared.append(name)
        say(f"shared   {name}: {ended.message}")
        return None
    if ended.code == OTHER_VERSION:
        outcome.refused[ended.place] = ended.message
    attempts[name] = attempts.get(name, 0) + 1
    failure = job.folder.failure()
    message, lasting = (failure["message"], failure["lasting"]) if failure else ("", False)
    if ended.code is None:
        message, lasting = f"{ended.place} is lost", False
    elif ended.code < 0 or ended.code == STOPPED:
        signal = f"signal {-ended.code}" if ended.code < 0 else "a signal"
        memory = "; out of memory, if nobody ended it" if ended.code == -9 else ""
        message, lasting = f"it was ended by {signal}{memory}", False
    elif not message:
        message = ended.message or f"it ended with exit code {ended.code}; log.txt has more"
    if not lasting and attempts[name] <= retries:
        say(f"again    {name}: {message}")
        return replace(job, avoid=job.avoid | {ended.place})
    if failure is None or failure["message"] != message:
        job.folder.fail(message, lasting=lasting, place=ended.place)
    outcome.failed.append(name)
    say(f"failed   {name}: {message}")
    return None
