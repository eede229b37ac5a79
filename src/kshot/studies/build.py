"""The learner, the data and the run of a cell, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kshot import data as datasets
from kshot.data.tasks import AnyDataset
from kshot.learners import TSAMAML, Learner
from kshot.learners.create import create_described
from kshot.runs.run import Run
from kshot.studies.cells import Cell, Options
from kshot.training.loop import train
from kshot.training.options import TrainingOptions
from kshot.tsa.stages import Stages
from kshot.tsa.train import train_tsa_maml


def training_options(cell: Cell, **more: Any) -> TrainingOptions:
    """How a cell is trained; it shows no progress line, which only its log would see."""
    return TrainingOptions.of(cell.options["training"] | {"seed": cell.seed, "progress": False} | more)


def build_learner(options: Options, data: AnyDataset, *, seed: int) -> Learner:
    """The untrained learner of a cell."""
    training = TrainingOptions.of(options["training"])
    return create_described(options, data, ways=training.ways, train_on=training.train_on, seed=seed)


def train_cell(cell: Cell, folder: Path, *, root: Path | str | None) -> Run:
    """Train the run of a cell, or go on with it; a run that has ended is only loaded."""
    data = datasets.load(cell.dataset, root)
    options = training_options(cell)
    learner = build_learner(cell.options, data, seed=cell.seed)
    if isinstance(learner, TSAMAML):
        stages = Stages(**cell.options["stages"])
        train_tsa_maml(learner, data, run=folder, stages=stages, training=options, resume=True)
    else:
        train(learner, data, run=folder, resume=True, **options.plain())
    return Run(folder, root=root)


def resolved_length(options: Options, learner: Learner, data: AnyDataset) -> Options:
    """The options with the number of epochs and of tasks per epoch that the defaults stand for."""
    training = TrainingOptions.of(options["training"])
    resolved = training.resolved(learner, data.split(training.train_on))
    length = {"max_epochs": resolved.max_epochs, "tasks_per_epoch": resolved.tasks_per_epoch}
    return {**options, "training": {**options["training"], **length}}


def images_per_task(options: Options, learner: Learner, data: AnyDataset) -> int:
    """The images of one training task."""
    training = TrainingOptions.of(options["training"])
    split = data.split(training.train_on)
    resolved = training.resolved(learner, split)
    sampler = learner.sampler(split, resolved.shape, seed=resolved.seed, within_domain=resolved.within_domain)
    return int(sampler.episodes(np.zeros(1, np.int64)).images().shape[1])
