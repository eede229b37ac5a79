"""The one line on the terminal that says how training goes, and the sentence that says how long it will take."""

from __future__ import annotations

import math
import sys
import time

from tqdm import tqdm

from kshot.measures import ACCURACY
from kshot.training.state import TrainingState

_SECONDS_BEFORE_ESTIMATE, _STEPS_BEFORE_ESTIMATE = 5.0, 3
_LONG = 10 * 60.0  # seconds of a training that a person should be told of


class ProgressLine:
    """Epoch, tasks per second, time left at most, loss, accuracy, images per second, and the best validation so far.

    Once, after the first steps, it says how long a long training will take, unless a time limit bounds it.

    Parameters
    ----------
    state
        How far training is, read at every step, and its options: whether there is a line at all.
    images_per_step
        Support and query images of a step's tasks.
    """

    def __init__(self, state: TrainingState, images_per_step: int) -> None:
        counters, options = state.counters, state.options
        self._counters, self._measure, self._options = counters, state.measure, options
        self._images_per_step, self._shown = images_per_step, options.progress and state.writes
        self._started, self._steps = time.perf_counter(), 0
        self._says_estimate = self._shown and options.time_limit is None
        steps = options.steps_per_epoch
        self._bar = tqdm(
            total=options.max_epochs * steps * options.meta_batch,
            initial=(counters.epoch * steps + counters.step) * options.meta_batch,
            unit="task",
            disable=not self._shown,
            # a log file gets a line now and then instead of one that is drawn over
            mininterval=0.1 if sys.stderr.isatty() else 30,
        )

    def start_epoch(self) -> None:
        """Start to measure the speed of an epoch, without the time that validation took."""
        self._started, self._steps = time.perf_counter(), 0
        self._bar.set_description(self._epoch, refresh=False)

    def start_validation(self) -> None:
        """Say why no training task is counted at the moment."""
        self._bar.set_description(f"{self._epoch}, validation")

    def advance(self, steps_read: int) -> None:
        """Count a step; `steps_read` of the epoch's steps are in its sums of loss and accuracy so far."""
        if not self._shown:
            return
        self._steps += 1
        seconds = time.perf_counter() - self._started
        if self._says_estimate and self._steps >= _STEPS_BEFORE_ESTIMATE and seconds >= _SECONDS_BEFORE_ESTIMATE:
            self._say_estimate(seconds / self._steps)
        counters, speed = self._counters, self._steps * self._images_per_step / seconds
        text = f"{speed:.0f} {'images' if self._measure is ACCURACY else 'points'}/s"
        if steps_read > 0:
            text += f", loss {counters.loss / steps_read:.4f}"
        if steps_read > 0 and self._measure is ACCURACY:
            text += f", accuracy {100 * counters.accuracy / steps_read:.1f} %"
        if not math.isnan(counters.best_accuracy):
            best = self._measure.text(self._measure.sign * counters.best_accuracy, counters.best_ci95)
            text += f", best validation {best}{self._measure.unit}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(self._options.meta_batch)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()

    @property
    def _epoch(self) -> str:
        return f"epoch {self._counters.epoch + 1}/{self._options.max_epochs}"

    def _say_estimate(self, seconds_per_step: float) -> None:
        """Say how long the steps that are left will take, if that is long."""
        self._says_estimate = False
        options, counters = self._options, self._counters
        epochs = options.max_epochs - counters.epoch
        seconds = seconds_per_step * (epochs * options.steps_per_epoch - counters.step)
        if seconds < _LONG:
            return
        sooner = "; it may stop early (patience)" if options.patience > 0 else ""
        tqdm.write(
            f"{epochs} epochs will take {_duration(seconds)}, plus the time of validation{sooner}. To train for less, "
            f"choose a smaller max_epochs (--max-epochs) or a time_limit in minutes (--time-limit)",
            file=sys.stderr,
        )


def _duration(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {seconds / 60:.0f} minutes"
