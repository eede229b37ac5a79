"""What a training achieved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kshot.measures import ACCURACY, SQUARED_ERROR

Stopped = Literal["max_epochs", "patience", "time_limit"]


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """What `train` achieved; the learner itself holds the weights of the best epoch.

    The training accuracy of a row of the history is often below its validation accuracy: it is measured while the
    weights still change, on augmented images, with dropout, and often on more ways or fewer shots; validation sees
    plain images with the weights at the end of the epoch.

    Attributes
    ----------
    best_accuracy, best_error
        Best validation accuracy, 0..1, or, for regression, the lowest mean squared error; the other one is nan, and
        both are if nothing was held out for validation.
    best_ci95
        Half-width of its 95% interval over tasks.
    best_epoch
        Its epoch, counted from 1; 0 if time ran out before the end of the first.
    validation_tasks
        Number of tasks behind the best value: fewer than asked for if time ran out before the end of the first epoch.
    history
        One row per epoch: epoch, tasks (so far), loss, accuracy (of the training tasks), validation_accuracy,
        validation_ci95, learning_rate, seconds, validation_seconds, tasks_per_second, images_per_second. Regression has
        no accuracy, and validation_squared_error in place of validation_accuracy. A learner with groups of tasks has
        group_nmi and group_ari, too, if tasks have domains: mutual information (normalised) and adjusted Rand index of
        groups and domains, on at most 100 validation tasks.
    seconds
        Of the whole run, validation and earlier sittings included.
    images_per_second
        Of training, without validation, in the median epoch; points count as images.
    peak_memory
        The most memory that this process held, MiB; GPU memory if training ran on a GPU.
    stopped
        What ended training.
    ending
        The same in a sentence.
    """

    best_accuracy: float
    best_error: float
    best_ci95: float
    best_epoch: int
    validation_tasks: int
    history: list[dict[str, Any]]
    seconds: float
    images_per_second: float
    peak_memory: float
    stopped: Stopped
    ending: str

    def __str__(self) -> str:
        if self.best_accuracy == self.best_accuracy:  # nan if nothing was held out
            best = f"best validation accuracy {ACCURACY.text(self.best_accuracy, self.best_ci95)} %, "
        elif self.best_error == self.best_error:
            best = f"lowest validation error {SQUARED_ERROR.text(self.best_error, self.best_ci95)}, "
        else:
            best = ""
        # if time ran out before the end of the first epoch, the ending says after how many steps
        epoch = f"epoch {self.best_epoch} of {len(self.history)}, " if self.history else ""
        return f"{best}{epoch}{self.seconds:.0f} s; ended {self.ending}"

    __repr__ = __str__
