"""The one line on the terminal that says how training goes."""

from __future__ import annotations

import math
import sys
import time

from tqdm import tqdm

from kshot.measures import ACCURACY, Measure
from kshot.training.state import Counters


class ProgressLine:
    """Epoch, tasks a second, time left at most, loss, accuracy, images a second, and the best validation so far."""

    def __init__(
        self,
        counters: Counters,
        measure: Measure,
        max_epochs: int,
        steps: int,
        meta_batch: int,
        images_per_task: int,
        show: bool,
    ) -> None:
        self._counters, self._measure, self._max_epochs = counters, measure, max_epochs
        self._meta_batch, self._images_per_step = meta_batch, meta_batch * images_per_task
        self._shown, self._started, self._steps = show, time.perf_counter(), 0
        self._bar = tqdm(
            total=max_epochs * steps * meta_batch,
            initial=(counters.epoch * steps + counters.step) * meta_batch,
            unit="task",
            disable=not show,
            # a log file gets a line now and then instead of one that is drawn over
            mininterval=0.1 if sys.stderr.isatty() else 30,
        )

    def start_epoch(self) -> None:
        """Begin to measure images a second anew, without the time that validation took."""
        self._started, self._steps = time.perf_counter(), 0
        self._bar.set_description(f"epoch {self._counters.epoch + 1}/{self._max_epochs}", refresh=False)

    def start_validation(self) -> None:
        """Say why the tasks of training stand still."""
        self._bar.set_description(f"epoch {self._counters.epoch + 1}/{self._max_epochs}, validation")

    def advance(self, steps_read: int) -> None:
        """Count a step; `steps_read` of the epoch's steps are in its sums of loss and accuracy so far."""
        if not self._shown:
            return
        self._steps += 1
        counters, speed = self._counters, self._steps * self._images_per_step / (time.perf_counter() - self._started)
        text = f"{speed:.0f} {'images' if self._measure is ACCURACY else 'points'}/s"
        if steps_read > 0:
            text += f", loss {counters.loss / steps_read:.4f}"
        if steps_read > 0 and self._measure is ACCURACY:
            text += f", accuracy {100 * counters.accuracy / steps_read:.1f} %"
        if not math.isnan(counters.best_accuracy):
            best = self._measure.text(self._measure.sign * counters.best_accuracy, counters.best_ci95)
            text += f", best validation {best}{self._measure.unit}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(self._meta_batch)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
