"""What training has done so far: the numbers of each epoch, and all that a resumed run needs."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kshot.errors import DivergenceError
from kshot.learners.base import Learner
from kshot.measures import ACCURACY, Measure
from kshot.runs import checkpoints
from kshot.runs.content import check_optimizer, check_schedule, check_weights
from kshot.runs.run import Run
from kshot.training.optimizers import Schedule, advance
from kshot.training.options import ResolvedOptions
from kshot.training.validation import Score


@dataclass
class Counters:
    """How far training is; plain numbers, so that a safe checkpoint can hold them.

    Attributes
    ----------
    epoch
        Finished epochs.
    step
        Finished steps of the current epoch.
    loss, accuracy
        Sums over those steps.
    epoch_seconds
        What those steps took.
    seconds
        Of the whole run, validation and earlier sittings included.
    best_accuracy, best_ci95, best_epoch
        Of the best validation so far; nan and 0 before the first. In regression, minus the mean squared error stands
        for the accuracy.
    history
        One row per epoch, see `TrainingResult`.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best_accuracy: float = math.nan
    best_ci95: float = math.nan
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class TrainingState:
    """The learner, its optimiser and schedule, how far they are, and the folder that all of it is saved in.

    Parameters
    ----------
    learner
        What is trained.
    options
        How it is trained.
    optimizer, schedule
        What moves its weights, and at what rate.
    measure
        What validation measures.
    config
        What the folder's config.yaml says.
    folder
        The run folder; None to save nothing.
    writes
        Whether this process is the one that writes files.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        options: ResolvedOptions,
        optimizer: Optimizer,
        schedule: Schedule,
        measure: Measure,
        config: dict[str, Any],
        folder: Run | None,
        writes: bool,
    ) -> None:
        self.learner, self.options, self.optimizer, self.schedule = learner, options, optimizer, schedule
        self.measure, self.config, self.folder, self.writes = measure, config, folder, writes
        self.counters = Counters()
        self._best_weights: dict[str, Tensor] = {}
        self._unread: list[Tensor] = []
        self._run_started = self._epoch_started = time.perf_counter()

    def start(self, resume: bool) -> None:
        """Take the run folder into use, and go on from its last checkpoint if there is one."""
        if self.folder is not None:
            saved = self.folder.checkpoint_to_continue(self.config, resume=resume)
            if saved is not None:
                self._restore(saved, self.folder)
            if self.writes:  # only now, so that a refused resume changes no file
                self.folder.take_into_use(self.config)
            self._write_history()
        self._run_started -= self.counters.seconds

    def _restore(self, saved: Mapping[str, Any], folder: Run) -> None:
        checkpoints.load_weights(self.learner, saved["learner"], folder.last)
        check_optimizer(saved["optimizer"], self.optimizer, folder.last)
        check_schedule(saved["schedule"], self.schedule.state_dict(), folder.last)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.counters = Counters(**saved["counters"])
        if self.counters.best_epoch > 0:
            best = checkpoints.load(folder.best, self.config)
            check_weights(best, folder.best)
            self._best_weights = best["learner"]

    def start_epoch(self) -> None:
        """Switch to train mode, and start the clock of this epoch; that of an interrupted epoch goes on."""
        self.learner.train()
        self._epoch_started = time.perf_counter() - self.counters.epoch_seconds

    @property
    def seconds(self) -> float:
        """Seconds of the whole run until now, earlier sittings included."""
        return time.perf_counter() - self._run_started

    @property
    def seconds_of_epoch(self) -> float:
        """Seconds of the current epoch until now."""
        return time.perf_counter() - self._epoch_started

    def count_step(self, metrics: Tensor, read_every: int) -> None:
        """Count a finished step with its (loss, accuracy), a tensor (2,).

        They are read from the device every `read_every` steps, because each reading makes a GPU wait.
        """
        self.counters.step += 1
        self._unread.append(metrics)
        if len(self._unread) >= read_every:
            self._read()

    @property
    def steps_read(self) -> int:
        """How many steps of the epoch the sums of loss and accuracy hold so far."""
        return self.counters.step - len(self._unread)

    def _read(self) -> None:
        """Add what is still on the device to the sums; DivergenceError names the first step without a finite loss."""
        unread = torch.stack(self._unread).tolist() if self._unread else []
        first = self.counters.step - len(unread) + 1
        self._unread = []
        for step, (loss, accuracy) in enumerate(unread, first):
            if not math.isfinite(loss):
                raise self.diverged(f"the loss is {loss}", step)
            self.counters.loss += loss
            self.counters.accuracy += accuracy

    def diverged(self, what: str, step: int) -> DivergenceError:
        """The error that ends training in this step of the current epoch."""
        kept = "the last good checkpoint is kept; " if self.counters.best_epoch > 0 else ""
        return DivergenceError(
            f"{what} in epoch {self.counters.epoch + 1}, step {step}; {kept}train again with a lower learning rate or "
            f"with precision=float32"
        )

    def end_steps(self) -> None:
        """Bring sums and clock up to date, before the time that validation or a pause takes.

        DivergenceError if the weights are not finite: a finite loss does not tell what the update after it did.
        """
        self._read()
        if not math.isfinite(torch.nn.utils.get_total_norm(self.learner.parameters(), math.inf)):
            raise self.diverged("the update left weights that are not finite", self.counters.step)
        self.counters.epoch_seconds = self.seconds_of_epoch

    def keep_best(self, score: Score) -> None:
        """Remember the weights as they are, with the validation score that they reached in this epoch."""
        counters = self.counters
        counters.best_accuracy, counters.best_ci95, counters.best_epoch = score.mean, score.ci95, counters.epoch
        self._best_weights = copy.deepcopy(self.learner.state_dict())
        self._save_best()

    def _save_best(self) -> None:
        if self.folder is not None and self.writes:
            self.folder.require_in_place()
            best = {"epoch": self.counters.best_epoch, "accuracy": self.counters.best_accuracy}
            content = {"config": self.config, "learner": self._best_weights, **best, "ci95": self.counters.best_ci95}
            checkpoints.save(self.folder.best, content)

    def end_epoch(self, score: Score, images_per_task: int, agreement: Mapping[str, float]) -> dict[str, Any]:
        """Close an epoch with its validation score and groups, and save; returns its row of the history."""
        counters, tasks = self.counters, self.options.steps_per_epoch * self.options.meta_batch
        counters.epoch += 1
        row = {
            "epoch": counters.epoch,
            "tasks": counters.epoch * tasks,
            "loss": counters.loss / counters.step,
            **({"accuracy": counters.accuracy / counters.step} if self.measure is ACCURACY else {}),
            f"validation_{self.measure.name}": self.measure.sign * score.mean,
            "validation_ci95": score.ci95,
            **agreement,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": counters.epoch_seconds,
            "validation_seconds": self.seconds_of_epoch - counters.epoch_seconds,
            "tasks_per_second": tasks / counters.epoch_seconds,
            "images_per_second": tasks * images_per_task / counters.epoch_seconds,
        }
        counters.history.append(row)
        counters.step, counters.loss, counters.accuracy, counters.epoch_seconds = 0, 0.0, 0.0, 0.0
        advance(self.schedule, score.mean)
        # if nothing is held out, both are nan, and the latest weights are the best
        if not score.mean <= counters.best_accuracy:
            self.keep_best(score)
        self.save()
        self._write_history()
        return row

    def end(self) -> None:
        """Put the best weights back into the learner, and write again what was removed from the folder meanwhile."""
        if self.folder is not None and self.writes:
            self.folder.require_in_place()
            if not self.folder.last.exists():
                self.save()
            if not self.folder.best.exists():
                self._save_best()
            self._write_history()
        self.learner.load_state_dict(self._best_weights)
        self.learner.eval()

    def save(self) -> None:
        """Write last.pt, from which a resumed run goes on, also in the middle of an epoch."""
        self.counters.seconds = self.seconds
        if self.folder is not None and self.writes:
            self.folder.require_in_place()
            content = {
                "config": self.config,
                "learner": self.learner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "counters": asdict(self.counters),
            }
            checkpoints.save(self.folder.last, content)

    def _write_history(self) -> None:
        if self.folder is not None and self.writes:
            self.folder.write_history(self.counters.history)
