"""What a training achieved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Stopped = Literal["max_epochs", "patience", "time_limit"]


@dataclass(frozen=True)
class TrainingResult:
    """What `train` achieved; the learner itself holds the weights of the best epoch.

    best_accuracy, best_error: best validation accuracy, 0..1, or, of tasks of regression, the least mean squared error;
        the other one is nan, and so are both where nothing was held out for validation.
    best_ci95: half-width of its 95% interval over tasks.
    best_epoch: its epoch, counted from 1; 0 where time ran out before the end of the first.
    history: a row for every epoch: epoch, tasks (so far), loss, accuracy, validation_accuracy, validation_ci95,
        learning_rate, seconds, validation_seconds, tasks_per_second, images_per_second. Regression has no accuracy, and
        validation_squared_error in the place of validation_accuracy.
    seconds: of the whole run, validation and earlier sittings included.
    images_per_second: of training, without validation, in the median epoch; points count as images.
    peak_memory: the most that this process held, MiB: of the GPU's memory where training ran on one.
    stopped: what ended training.
    run: the run folder, if there is one.
    """

    best_accuracy: float
    best_error: float
    best_ci95: float
    best_epoch: int
    history: list[dict[str, Any]]
    seconds: float
    images_per_second: float
    peak_memory: float
    stopped: Stopped
    run: Path | None
