"""What a training achieved, gathered once it has ended."""

from __future__ import annotations

import math
import statistics

from kshot.measures import ACCURACY, SQUARED_ERROR
from kshot.memory import peak_memory
from kshot.runs.result import Stopped, TrainingResult
from kshot.training.batches import StepTasks
from kshot.training.options import ResolvedOptions
from kshot.training.state import Counters, TrainingState
from kshot.training.validation import Score


def summarize(state: TrainingState, stopped: Stopped, *, tasks: StepTasks, last: Score | None) -> TrainingResult:
    """The result of a training that has ended, of which `last` is the last validation score of this sitting."""
    counters, measure, options = state.counters, state.measure, state.options
    return TrainingResult(
        best_accuracy=counters.best_accuracy if measure is ACCURACY else math.nan,
        best_error=-counters.best_accuracy if measure is SQUARED_ERROR else math.nan,
        best_ci95=counters.best_ci95,
        best_epoch=counters.best_epoch,
        validation_tasks=last.tasks if last is not None and counters.best_epoch == 0 else options.validation_tasks,
        history=counters.history,
        seconds=state.seconds,
        images_per_second=_images_per_second(counters, tasks),
        peak_memory=peak_memory(tasks.device),
        stopped=stopped,
        ending=_ending(counters, stopped, options),
    )


def _images_per_second(counters: Counters, tasks: StepTasks) -> float:
    """The speed of the median epoch, or, if there is none yet, of the steps so far."""
    if counters.history:
        return statistics.median(row["images_per_second"] for row in counters.history)
    return counters.step * tasks.images_per_step / counters.epoch_seconds if counters.step else math.nan


def _ending(counters: Counters, stopped: Stopped, options: ResolvedOptions) -> str:
    """What ended training, to be read after "ended"."""
    if stopped == "max_epochs":
        return f"after epoch {counters.epoch} of {options.max_epochs}"
    if stopped == "patience":
        return f"early, {counters.epoch - counters.best_epoch} epochs after the best one (patience)"
    steps = options.steps_per_epoch
    place = (
        f"after {counters.step} of {steps} steps" if counters.step < steps else "before a validation that would not fit"
    )
    return f"by the time limit, in epoch {counters.epoch + 1} of at most {options.max_epochs}, {place}"
