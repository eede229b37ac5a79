"""The training loop; it reads from top to bottom, and never knows which algorithm it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kshot import seeding
from kshot.data.augmentation import augmentation_for
from kshot.data.tasks import AnyDataset, AnySplit
from kshot.errors import ConfigError, DivergenceError
from kshot.learners.base import Learner
from kshot.learners.training_split import observe
from kshot.memory import keep_freed_memory
from kshot.runs.config import describe_data, describe_learner
from kshot.runs.result import Stopped
from kshot.runs.run import Run
from kshot.training.batches import StepTasks
from kshot.training.checks import check_compile, check_fit, check_kinds, check_queries
from kshot.training.distributed import Processes
from kshot.training.halts import Halts, TimeLimit
from kshot.training.interrupts import StopSignals, TrainingInterrupted
from kshot.training.keywords import TrainKeywords, with_keywords_of
from kshot.training.loggers import Loggers, check_loggers
from kshot.training.optimizers import make_optimizer, make_schedule
from kshot.training.options import ResolvedOptions, TrainingOptions
from kshot.training.progress import ProgressLine
from kshot.training.result import summarize
from kshot.training.state import TrainingState
from kshot.training.validation import Score, Validation

_STEPS_BETWEEN_READINGS = 50  # on a GPU, which each reading of the loss makes wait


@with_keywords_of(TrainKeywords)
def train(
    learner: Learner, data: AnyDataset, *, run: Path | str | None = None, resume: bool = False, **options: Any
) -> Run:
    """Train a learner; at the end it holds the weights of the epoch with the best validation accuracy.

    The same seed on the same machine with the same number of threads gives the same numbers, also across a kill and a
    resume. Under torchrun, several processes share the tasks of each step and make the update of a single one.

    Parameters
    ----------
    learner
        What to train; it is moved to the device and changed in place.
    data
        Dataset with the classes to train and to validate on; or a family of functions for tasks of regression, for
        which the lowest mean squared error is the best.
    run
        Folder for checkpoints and logs; None writes nothing.
    resume
        Continue the run in the folder; a run that was killed before its first checkpoint starts again.
    **options
        How to train: the fields of `TrainingOptions`.

    Returns
    -------
    Run
        The run, which can be measured, compared and shown. Its ``.result`` is a `TrainingResult`: the best validation
        accuracy with its interval, one row per epoch, speed, and what ended training.

    Raises
    ------
    ConfigError, DataError
        Before any work, if an option, the data and the learner do not go together.
    DivergenceError
        If the loss is no longer finite; the last good checkpoint is kept.
    CheckpointError
        If a checkpoint cannot be written or read, or belongs to something else.
    TrainingInterrupted
        If Ctrl-C or SIGTERM came; the run was saved after the current step.
    """
    chosen, split, held_out, config = _plan(learner, data, TrainingOptions.of(options), run=run, resume=resume)
    processes = Processes(chosen.device)
    written = Run(run)
    with written.locked(processes.is_first), StopSignals() as signals, _own_random_numbers(processes.device):
        tasks = _tasks(learner, split, chosen, processes)
        validation = Validation(learner, held_out, options=chosen, processes=processes)
        _prepare(learner, [split, held_out], chosen, processes.device)
        optimizer = make_optimizer(learner.parameters(), chosen)
        state = TrainingState(
            learner,
            options=chosen,
            optimizer=optimizer,
            schedule=make_schedule(optimizer, chosen),
            measure=split.measure,
            config=config,
            folder=written if run is not None else None,
            writes=processes.is_first,
        )
        state.start(resume)
        processes.start_alike(learner)
        halts = Halts(signals, TimeLimit(state, held_out, tasks.images_per_step), processes)
        bar, loggers = ProgressLine(state, tasks.images_per_step), Loggers(state)
        score = None
        with contextlib.closing(bar), contextlib.closing(loggers):
            while (stopped := _finished(state)) is None:
                in_time = _train_steps(state, tasks, processes, halts, bar)
                score = _validate(state, split, validation, halts, bar) if in_time else None
                if score is None or score.tasks < chosen.validation_tasks:
                    stopped = "time_limit"
                    state.save()
                    break
                loggers.log(state.end_epoch(score, tasks.images_per_task, validation.agreement()))
            if state.counters.best_epoch == 0:  # time ran out in the first epoch
                score = score or _validate(state, split, validation, halts, bar)
                state.keep_best(score)
        state.end()
        processes.wait()
        written.end(learner, data, config=config, result=summarize(state, stopped, tasks=tasks, last=score))
    return written


def _plan(
    learner: Learner, data: AnyDataset, options: TrainingOptions, *, run: Path | str | None, resume: bool
) -> tuple[ResolvedOptions, AnySplit, AnySplit | None, dict[str, Any]]:
    """The resolved options, the split to train on, the one held out, and config.yaml; errors come before any work."""
    check_kinds(learner, data)
    if resume and run is None:
        raise ConfigError("there is nothing to resume without a run folder; name it with run=...")
    if options.loggers and run is None:
        raise ConfigError("loggers write into the run folder; name one with run=...")
    check_loggers(options.loggers or [])
    split, held_out = data.split(options.train_on), data.val if options.train_on == "train" else None
    resolved = options.resolved(learner, split)
    check_queries(learner, resolved.queries)
    if resolved.compile:
        check_compile(learner)
    config = {"data": describe_data(data), **describe_learner(learner), "training": resolved.plain()}
    check_fit(learner, config, split)
    return resolved, split, held_out, config


def _tasks(learner: Learner, split: AnySplit, options: ResolvedOptions, processes: Processes) -> StepTasks:
    """The training tasks of each step."""
    return StepTasks(
        learner.sampler(split, options.shape, seed=options.seed, within_domain=options.within_domain),
        normalization=split.normalization,
        augmentation=augmentation_for(split.normalization, split.image_shape[-1]) if options.augment else None,
        meta_batch=options.meta_batch,
        processes=processes,
    )


def _train_steps(state: TrainingState, tasks: StepTasks, processes: Processes, halts: Halts, bar: ProgressLine) -> bool:
    """The steps of the epoch that are still to do; returns False if there is no time for all of them and validation.

    Raises TrainingInterrupted after a signal.
    """
    learner, optimizer, counters, options = state.learner, state.optimizer, state.counters, state.options
    read_every = _STEPS_BETWEEN_READINGS if processes.device.type == "cuda" else 1
    key = seeding.key(options.seed, "steps", processes.rank)
    first = counters.epoch * options.steps_per_epoch
    halt = None
    state.start_epoch()
    bar.start_epoch()
    for episodes in tasks.steps(first + counters.step, first + options.steps_per_epoch):
        _seed_torch(int(seeding.bits(key, first + counters.step)[0] >> 1), processes.device)
        optimizer.zero_grad()
        with _naming_step_and_task(state, tasks, first + counters.step):
            measured = learner.accumulate_gradients(episodes)
        metrics = torch.stack([measured["loss"], measured["accuracy"]])
        processes.average(learner, metrics)
        optimizer.step()
        state.count_step(metrics, read_every)
        bar.advance(state.steps_read)
        halt = halts.after_step()
        if halt is not None:
            break
    state.end_steps()
    if halt == "signal":
        state.save()
        raise TrainingInterrupted(_how_to_go_on(state))
    return halt is None and not halts.before_validation()


def _validate(state: TrainingState, split: AnySplit, validation: Validation, halts: Halts, bar: ProgressLine) -> Score:
    """The validation score, on fewer tasks if time is short; a DivergenceError says after which step."""
    bar.start_validation()
    observe(state.learner, split)
    try:
        seconds = halts.seconds_for_first_validation()
        return validation.score() if seconds is None else validation.score_within(seconds)
    except DivergenceError as error:
        raise state.diverged(f"validation failed ({error})", state.counters.step) from error


@contextlib.contextmanager
def _naming_step_and_task(state: TrainingState, tasks: StepTasks, step: int) -> Iterator[None]:
    """Errors of a solver, which meets what the loss would have shown a moment later, name the step and the task."""
    try:
        yield
    except DivergenceError as error:
        if error.task is not None:
            error.task = int(tasks.numbers(step, step + 1)[error.task])
        raise state.diverged(f"training failed ({error})", state.counters.step + 1) from error


def _prepare(learner: Learner, splits: list[AnySplit | None], options: ResolvedOptions, device: torch.device) -> None:
    """Put learner and images where training happens, in the form that it runs fastest in."""
    if device.type == "cpu":
        keep_freed_memory()
    learner.to(device)
    if options.channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner.precision = options.precision
    for split in splits:
        if split is not None:
            split.to(device)
    if options.compile:
        learner.backbone.compile()  # type: ignore[union-attr]


def _finished(state: TrainingState) -> Stopped | None:
    counters, options = state.counters, state.options
    if counters.epoch >= options.max_epochs:
        return "max_epochs"
    return "patience" if 0 < options.patience <= counters.epoch - counters.best_epoch else None


def _how_to_go_on(state: TrainingState) -> str:
    where = f"stopped in epoch {state.counters.epoch + 1} after step {state.counters.step}"
    if state.folder is None:
        return f"{where}; nothing was saved, because training had no run folder: name one with run=..."
    path = state.folder.path
    return f"{where}; the run is saved in {path}: continue with resume=True (kshot train --resume {path})"


def _seed_torch(seed: int, device: torch.device) -> None:
    """For modules that draw from torch's own generator, such as nn.Dropout in a user's backbone.

    ``torch.manual_seed`` asks for every kind of device, and takes half a percent of a step of Conv4.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were: training seeds them in every step."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
