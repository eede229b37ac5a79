"""What may halt training between two steps: a signal, or a time limit that training and validation share."""

from __future__ import annotations

import math
from typing import Literal

from kshot.data.dataset import Split
from kshot.data.tasks import AnySplit
from kshot.learners.base import FeatureLearner
from kshot.training.distributed import Processes
from kshot.training.interrupts import StopSignals
from kshot.training.state import TrainingState

_KEPT_FOR_VALIDATION = 0.1  # of the limit, while it is unknown how long a validation takes
_KEPT_AT_MOST = 0.5


class TimeLimit:
    """The clock of a run with a time limit.

    Until the first epoch has ended the weights have never been validated, and a part of the limit is kept for that.
    From then on a validation is expected to take as long as the last one did.

    Parameters
    ----------
    state
        The options, with the limit, and how long the run took so far, earlier sittings included.
    held_out
        The validation classes, if any.
    images_per_step
        Training images per step.
    """

    def __init__(self, state: TrainingState, held_out: AnySplit | None, images_per_step: int) -> None:
        minutes = state.options.time_limit
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._state, self._held_out, self._images_per_step = state, held_out, images_per_step

    @property
    def left(self) -> float:
        """Seconds until the limit; negative after it, infinite without one."""
        return self._seconds - self._state.seconds

    def ends_steps(self) -> bool:
        """Whether no time is left for another step."""
        return self._seconds < math.inf and self.left < self._kept_for_validation()

    def ends_before_validation(self) -> bool:
        """Whether a whole validation would end after the limit."""
        history = self._state.counters.history
        return bool(history) and self.left < history[-1]["validation_seconds"]

    def seconds_for_first_validation(self) -> float | None:
        """Seconds that the run's first validation may take; None for as many as it needs, and for any later one."""
        return None if self._seconds == math.inf or self._state.counters.history else self.left

    def _kept_for_validation(self) -> float:
        if self._state.counters.best_epoch > 0 or self._held_out is None:
            return 0.0
        kept = _KEPT_FOR_VALIDATION * self._seconds
        if isinstance(self._state.learner, FeatureLearner) and isinstance(self._held_out, Split):
            # every held-out image passes forward once, which is quicker than the steps of training were
            speed = self._state.counters.step * self._images_per_step / self._state.seconds_of_epoch
            kept = max(kept, len(self._held_out.images) / speed)
        return min(kept, _KEPT_AT_MOST * self._seconds)


class Halts:
    """Asks for signals and for the time limit, and has all processes agree."""

    def __init__(self, signals: StopSignals, limit: TimeLimit, processes: Processes) -> None:
        self._signals, self._limit, self._processes = signals, limit, processes

    def after_step(self) -> Literal["signal", "time_limit"] | None:
        """What ends the steps of the epoch here, if anything does."""
        interrupted, late = self._processes.any([self._signals.requested, self._limit.ends_steps()])
        if interrupted:
            return "signal"
        return "time_limit" if late else None

    def before_validation(self) -> bool:
        """Whether there is no time left to validate."""
        return self._processes.any([self._limit.ends_before_validation()])[0]

    def seconds_for_first_validation(self) -> float | None:
        """See `TimeLimit.seconds_for_first_validation`."""
        return self._limit.seconds_for_first_validation()
