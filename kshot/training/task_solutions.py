"""Estimated optima of many training tasks, streamed to disk: the second stage of TSA-MAML (Z21 section 4.2)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from kshot.data.augmentation import augmentation_for
from kshot.data.dataset import Dataset
from kshot.data.episodes import TaskShape
from kshot.errors import DivergenceError
from kshot.features import evaluating
from kshot.learners import TSAMAML
from kshot.memory import keep_freed_memory
from kshot.training.batches import StepTasks
from kshot.training.distributed import Processes
from kshot.training.interrupts import StopSignals, TrainingInterrupted
from kshot.training.solution_file import SolutionFile

_TASKS_AT_ONCE = 16  # between two records of progress


def solve_tasks(
    learner: TSAMAML, data: Dataset, options: Mapping[str, Any], folder: Path, count: int
) -> NDArray[np.float32]:
    """The vectors (n, D) of the first `count` training tasks, computed as far as the files in `folder` lack them.

    options: all options of `kshot.train`, which say what the tasks are.

    Raises TrainingInterrupted after a signal, CheckpointError for files that are damaged or of other tasks or weights,
    DivergenceError for a task whose descent from theta* diverges.
    """
    tasks = _training_tasks(learner, data, options)
    file = SolutionFile(folder, count, learner.vector_size, _origin(learner, data, options))
    steps = (math.ceil(done / _TASKS_AT_ONCE) for done in (file.done, count))
    bar = tqdm(total=count, initial=file.done, unit="task", desc="task solutions", disable=not options["progress"])
    with StopSignals() as signals, evaluating(learner, options["precision"]), bar:
        for episodes in tasks.steps(*steps):
            wanted = episodes.part(0, count - file.done)
            try:
                vectors = torch.cat(learner.by_chunk(learner.task_vectors, wanted))
            except DivergenceError as error:
                error.task = None if error.task is None else error.task + file.done
                raise
            file.append(vectors.cpu().numpy())
            bar.update(wanted.tasks)
            if signals.requested and not file.complete:
                raise TrainingInterrupted(f"stopped after {file.done} of {count} task solutions")
    return file.read()


def _training_tasks(learner: TSAMAML, data: Dataset, options: Mapping[str, Any]) -> StepTasks:
    """The tasks of training, some at a time, and the learner where they are."""
    split = data.split(options["train_on"])
    shape = TaskShape(options["ways"], options["shots"], options["queries"])
    sampler = learner.sampler(split, shape, options["seed"], options["within_groups"])
    augmentation = augmentation_for(split.normalization, split.image_shape[-1]) if options["augment"] else None
    processes = Processes(options["device"])
    if processes.device.type == "cpu":
        keep_freed_memory()
    learner.to(processes.device)
    if options["channels_last"]:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return StepTasks(sampler, split.normalization, augmentation, _TASKS_AT_ONCE, processes)


def _origin(learner: TSAMAML, data: Dataset, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the task solutions depend on."""
    digest = hashlib.sha256()
    for weight in learner.network.parameters():
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    names = ("ways", "shots", "queries", "within_groups", "train_on", "augment", "seed", "precision")
    described = {name: learner.options[name] for name in ("assignment_steps", "inner_rate", "layers", "cluster_norms")}
    own = {"dataset": data.name, "pretrained weights": digest.hexdigest()}
    return own | described | {name: options[name] for name in names}
