"""The training loop; it reads from top to bottom, and never knows which algorithm it trains."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

from kshot import seeding
from kshot.data.augmentation import augmentation_for
from kshot.data.episodes import TaskShape
from kshot.data.tasks import AnyDataset, AnySplit
from kshot.errors import DivergenceError
from kshot.learners.base import Learner
from kshot.measures import ACCURACY, SQUARED_ERROR
from kshot.memory import keep_freed_memory, peak_memory
from kshot.runs.config import describe_data, describe_learner
from kshot.runs.folder import RunFolder
from kshot.runs.result import Stopped, TrainingResult
from kshot.training.batches import StepTasks
from kshot.training.distributed import Processes
from kshot.training.interrupts import StopSignals, TrainingInterrupted
from kshot.training.loggers import LoggerName, Loggers
from kshot.training.optimizers import (
    OptimizerName,
    ScheduleName,
    default_weight_decay,
    make_optimizer,
    make_schedule,
)
from kshot.training.options import check_compile, check_fit, check_options, check_queries
from kshot.training.progress import ProgressLine
from kshot.training.state import Counters, TrainingState
from kshot.training.validation import make_validation

_NOT_OPTIONS = ("learner", "data", "run", "resume", "split", "held_out")
_STEPS_BETWEEN_READINGS = 50  # on a GPU, which each reading of the loss makes wait


def train(
    learner: Learner,
    data: AnyDataset,
    *,
    ways: int | None = None,
    shots: int = 5,
    queries: int = 5,
    within_domain: bool | None = None,
    meta_batch: int | None = None,
    tasks_per_epoch: int | None = None,
    max_epochs: int = 100,
    validation_tasks: int = 400,
    validation_ways: int | None = None,
    validation_shots: int | None = None,
    validation_queries: int = 15,
    patience: int = 15,
    optimizer: OptimizerName = "radam",
    learning_rate: float = 1e-3,
    weight_decay: float | None = None,
    momentum: float = 0.9,
    nesterov: bool = False,
    clip_gradient_value: float | None = None,
    clip_gradient_norm: float | None = None,
    schedule: ScheduleName = "plateau",
    plateau_patience: int = 4,
    factor: float | list[float] = 0.1,
    milestones: list[int] | None = None,
    train_on: Literal["train", "train+val"] = "train",
    augment: bool = True,
    seed: int = 0,
    run: Path | str | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: Literal["float32", "bf16"] = "float32",
    channels_last: bool = True,
    compile: bool = False,
    loggers: list[LoggerName] | None = None,
    progress: bool = True,
    time_limit: float | None = None,
) -> TrainingResult:
    """Train a learner; at the end it holds the weights of the epoch with the best validation accuracy.

    The same seed on the same machine with the same number of threads gives the same numbers, also across a kill and a
    resume. Under torchrun, several processes share the tasks of each step and make the update of a single one.

    Parameters
    ----------
    learner : what to train; it is moved to the device and changed in place.
    data : dataset with the classes to train and to validate on, or a family of functions for tasks of regression, where
        the lowest mean squared error is the best, as the highest accuracy is elsewhere.
    ways : classes a training task; None for 5. Tasks of regression have none.
    shots : support images a class of the training tasks, or support points.
    queries : query images a class of the training tasks, or query points.
    within_domain : draw all classes of a training or validation task from one group (alphabet, superclass, domain), or
        from all of them; None as the dataset says, where a mixture asks for one domain a task.
    meta_batch : tasks a step; None for the learner's own (W21: 6).
    tasks_per_epoch : tasks an epoch, rounded up to whole steps; None for the learner's own (W21: 1600).
    max_epochs : epochs at most.
    validation_tasks : validation tasks after each epoch, the same ones every time.
    validation_ways : classes a validation task; None for as many as a training task has.
    validation_shots : support images a class of the validation tasks; None for as many as in training.
    validation_queries : query images a class of the validation tasks.
    patience : epochs without a better validation accuracy after which training stops; 0 never stops early.
    optimizer : sgdp, sgdw, adabound and adamp need the extra package: ``pip install kshot[optimizers]``.
    learning_rate : rate of the first epoch; adamax runs at twice this rate, as in the release of W21.
    weight_decay : None for 0.01 with adamw and 0 with all others.
    momentum, nesterov : of sgd, sgdp and sgdw.
    clip_gradient_value : cut each entry of the gradient to [-value, value], as MAML's release does at 10; None: no cut.
    clip_gradient_norm : shorten the gradient of all parameters together to this length, as Meta-LSTM's release does to
        0.25; None: leave it as long as it is.
    schedule : "plateau" multiplies the rate by `factor` after `plateau_patience` epochs without a better validation
        accuracy, "step" at each of the `milestones`; "cosine" and "linear" lower it to 0 over `max_epochs`, the latter
        by the same amount each epoch.
    plateau_patience : epochs that the plateau schedule waits.
    factor : what the rate is multiplied by; for "step" one number, or one for each milestone.
    milestones : epochs after which the step schedule lowers the rate.
    train_on : "train+val" adds the validation classes; nothing is then held out, so there is no validation, no early
        stopping and no plateau schedule, and the weights of the last epoch are kept.
    augment : random crop, colour jitter and mirroring, for datasets that can bear it; False for none.
    seed : names the training tasks, their augmentation and dropout masks, and the validation tasks.
    run : folder for checkpoints and logs; None writes nothing.
    resume : continue the run in the folder, or start it where it was killed before its first checkpoint.
    device : "auto" for a GPU where there is one; or a torch device such as "cpu" or "cuda:1".
    precision : what the backbone computes in; "bf16" is about twice as fast, also on many CPUs, but bends the gradients
        of learners that adapt weights: those of MAML on 32 px have a cosine of about 0.8 with the exact ones.
    channels_last : memory layout of images and convolutions, usually the faster one; changes rounding only.
    compile : compile the backbone with torch.compile, which costs a minute or two at the start.
    loggers : "tensorboard" or "wandb" beside metrics.csv; both need `run` and a package of their own.
    progress : show a line with loss, accuracy, speed and time left.
    time_limit : minutes of the whole run, earlier sittings included, after which it stops as if interrupted, so that it
        can be resumed with a higher limit; None for no limit.

    Raises
    ------
    ConfigError, DataError : before any work, where an option, the data and the learner do not go together.
    DivergenceError : the loss is no longer finite; the last good checkpoint is kept.
    CheckpointError : a checkpoint cannot be written or read, or belongs to something else.
    TrainingInterrupted : Ctrl-C or SIGTERM came; the run was saved after the step at hand.
    """
    check_options(locals())
    split, held_out = data.split(train_on), data.val if train_on == "train" else None
    ways = split.usual_ways if ways is None else ways
    validation_ways = ways if validation_ways is None else validation_ways
    learner.check_ways(ways)
    learner.check_ways(validation_ways)
    check_queries(learner, queries)
    if compile:
        check_compile(learner)
    meta_batch, tasks_per_epoch = meta_batch or learner.meta_batch, tasks_per_epoch or learner.tasks_per_epoch(split)
    validation_shots = shots if validation_shots is None else validation_shots
    weight_decay = default_weight_decay(optimizer) if weight_decay is None else weight_decay
    options = {name: value for name, value in locals().items() if name not in _NOT_OPTIONS}
    config = {"data": describe_data(data), **describe_learner(learner), "training": options}
    check_fit(learner, config, split)
    sampler = learner.sampler(split, TaskShape(ways, shots, queries), seed, within_domain)
    augmentation = augmentation_for(split.normalization, split.image_shape[-1]) if augment else None
    validation_shape = TaskShape(validation_ways, validation_shots, validation_queries)

    processes = Processes(device)
    with StopSignals() as signals, _own_random_numbers(processes.device):
        validate = make_validation(
            learner, held_out, validation_shape, validation_tasks, seed, within_domain, precision, processes
        )
        tasks = StepTasks(sampler, split.normalization, augmentation, meta_batch, processes)
        _prepare(learner, [split, held_out], processes.device, precision, channels_last, compile)
        updater = make_optimizer(
            optimizer,
            learner.parameters(),
            learning_rate,
            weight_decay,
            momentum,
            nesterov,
            clip_gradient_value,
            clip_gradient_norm,
        )
        rates = make_schedule(schedule, updater, max_epochs, plateau_patience, factor, milestones or ())
        folder = RunFolder(run) if run is not None else None
        state = TrainingState(learner, updater, rates, split.measure, config, folder, processes.is_first)
        state.start(resume)
        processes.start_alike(learner)
        counters, steps = state.counters, math.ceil(tasks_per_epoch / meta_batch)
        shown = progress and processes.is_first
        bar = ProgressLine(counters, split.measure, max_epochs, steps, meta_batch, tasks.images_per_task, shown)
        record = Loggers(loggers or [], run, config) if processes.is_first else Loggers([], None, {})
        with contextlib.closing(bar), contextlib.closing(record):
            while (stopped := _finished(counters, max_epochs, patience)) is None:
                halt = _train_epoch(state, tasks, steps, seed, processes, signals, time_limit, bar)
                if halt is not None:
                    state.pause()
                if halt == "signal":
                    raise TrainingInterrupted(_how_to_go_on(folder, counters))
                if halt == "time_limit":
                    stopped = halt
                    break
                bar.start_validation()
                accuracy, ci95 = _validated(state, validate)
                record.log(state.end_epoch(accuracy, ci95, steps * meta_batch, tasks.images_per_task))
        if counters.best_epoch == 0:
            state.keep_best(*_validated(state, validate))
        state.load_best()
    return TrainingResult(
        best_accuracy=counters.best_accuracy if split.measure is ACCURACY else math.nan,
        best_error=-counters.best_accuracy if split.measure is SQUARED_ERROR else math.nan,
        best_ci95=counters.best_ci95,
        best_epoch=counters.best_epoch,
        history=counters.history,
        seconds=state.seconds,
        images_per_second=statistics.median([row["images_per_second"] for row in counters.history] or [math.nan]),
        peak_memory=peak_memory(processes.device),
        stopped=stopped,
        run=folder.path if folder is not None else None,
    )


def _train_epoch(
    state: TrainingState,
    tasks: StepTasks,
    steps: int,
    seed: int,
    processes: Processes,
    signals: StopSignals,
    time_limit: float | None,
    bar: ProgressLine,
) -> Literal["signal", "time_limit"] | None:
    """The steps of the epoch that are still to do; returns what cut them short, if anything did."""
    learner, optimizer, counters = state.learner, state.optimizer, state.counters
    read_every = _STEPS_BETWEEN_READINGS if processes.device.type == "cuda" else 1
    key = seeding.key(seed, "steps", processes.rank)
    first = counters.epoch * steps
    state.start_epoch()
    bar.start_epoch()
    for episodes in tasks.steps(first + counters.step, first + steps):
        # for modules that draw from torch's own generator, such as nn.Dropout in somebody's backbone
        torch.manual_seed(int(seeding.bits(key, first + counters.step)[0] >> 1))
        optimizer.zero_grad()
        try:
            measured = learner.accumulate_gradients(episodes)
        except DivergenceError as error:  # a solver met what the loss would have shown a moment later
            step = first + counters.step
            if error.task is not None:
                error.task = int(tasks.numbers(step, step + 1)[error.task])
            raise state.diverged(f"training failed ({error})", counters.step + 1) from error
        metrics = torch.stack([measured["loss"], measured["accuracy"]])
        processes.average(learner, metrics)
        optimizer.step()
        state.count_step(metrics, read_every)
        bar.advance(state.steps_read)
        late = time_limit is not None and state.seconds > 60 * time_limit
        interrupted, late = processes.any([signals.requested, late])
        if interrupted or late:
            return "signal" if interrupted else "time_limit"
    state.end_steps()
    return None


def _validated(state: TrainingState, validate: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """What `make_validation` says, validation accuracy and 95% half-width; a DivergenceError says after which step."""
    try:
        return validate()
    except DivergenceError as error:
        raise state.diverged(f"validation failed ({error})", state.counters.step) from error


def _prepare(
    learner: Learner,
    splits: list[AnySplit | None],
    device: torch.device,
    precision: Literal["float32", "bf16"],
    channels_last: bool,
    compile: bool,
) -> None:
    """Put learner and images where training happens, in the form that it runs fastest in."""
    if device.type == "cpu":
        keep_freed_memory()
    learner.to(device)
    if channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner.precision = precision
    for split in splits:
        if split is not None:
            split.to(device)
    if compile:
        learner.backbone.compile()  # type: ignore[union-attr]


def _finished(counters: Counters, max_epochs: int, patience: int) -> Stopped | None:
    if counters.epoch >= max_epochs:
        return "max_epochs"
    return "patience" if 0 < patience <= counters.epoch - counters.best_epoch else None


def _how_to_go_on(folder: RunFolder | None, counters: Counters) -> str:
    where = f"stopped in epoch {counters.epoch + 1} after step {counters.step}"
    if folder is None:
        return f"{where}; nothing was saved, because training had no run folder: name one with run=..."
    return f"{where}; the run is saved in {folder.path}: continue with resume=True (kshot train --resume {folder.path})"


@contextlib.contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were: training seeds them anew in every step."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
