"""The experiment of `kshot demo`: three learners and an untrained network on the same tasks of unseen classes.

What it trains, and how, is written here; everything else is the public surface that any experiment calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.data.augmentation import prepare_images
from kshot.data.dataset import Dataset
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.evaluation.features import device_of, evaluating
from kshot.evaluation.protocol import evaluate
from kshot.files import write_text
from kshot.learners.base import FeatureLearner
from kshot.learners.create import create_learner
from kshot.report import pictures
from kshot.report.rows import Row
from kshot.report.tables import table
from kshot.runs.run import Run
from kshot.training import train

DATASET = "glyphs"
TASKS = 1000
SHOTS = (1, 5)
# An epoch has 10,000 images for each learner, which take about three seconds on a CPU with two cores.
TRAINING: dict[str, dict[str, Any]] = {
    "mtl": {"ways": 100, "shots": 1, "queries": 1, "meta_batch": 1, "tasks_per_epoch": 50},
    "supervised": {"meta_batch": 100, "tasks_per_epoch": 10_000},
    "protonet": {"ways": 20, "shots": 5, "queries": 5, "meta_batch": 1, "tasks_per_epoch": 50},
}
# chosen on the validation scripts: the paper's initial matrix is too large for 1,483 classes to be learnt fast, and its
# scores, between -1 and 1 times the rows' lengths, are too small
LEARNERS: dict[str, dict[str, Any]] = {"mtl": {"initial_scale": 0.1, "scale": 10.0}}
SHARED: dict[str, Any] = {
    "learning_rate": 0.01,
    "patience": 0,
    "validation_ways": 5,
    "validation_shots": 5,
    "validation_tasks": 200,
}


@dataclass(frozen=True)
class Contestant:
    """A learner of the demo and its row of the table; the row of an untrained learner has no seconds.

    Attributes
    ----------
    learner
        Trained or untrained, in evaluation mode.
    row
        Its name and its results at each number of shots.
    """

    learner: FeatureLearner
    row: Row

    def __str__(self) -> str:
        text = f"{self.row.name}: {100 * self.row.results[-1].mean:.1f} % at {SHOTS[-1]} shots"
        return text if self.row.seconds is None else f"{text} after {self.row.seconds:.0f} s of training"


def contestants(data: Dataset, out: Path, *, seed: int, epochs: int) -> Iterator[Contestant]:
    """Train and measure one learner after the other, into run folders in `out`; then measure an untrained network."""
    for name, options in TRAINING.items():
        learner = _new(name, data, seed)
        _forget(out / name)
        run = train(learner, data, max_epochs=epochs, seed=seed, run=out / name, **options, **SHARED)
        assert run.result is not None, "the training has just ended"
        measured = run.evaluate(shots=SHOTS, tasks=TASKS, seed=seed)
        yield Contestant(learner, Row(name, measured, seconds=run.result.seconds))
    learner = _new("mtl", data, seed)
    measured = Run.of(learner, data, {}).evaluate(shots=SHOTS, tasks=TASKS, seed=seed)
    yield Contestant(learner, Row("untrained", measured))


def write_table(measured: Sequence[Contestant], *, seed: int, path: Path) -> str:
    """The table of all contestants, paired with the first one; also written to `path`."""
    rows = [contestant.row for contestant in measured]
    text = f"{table(rows, paired=True)}\nTraining seed {seed}; Conv4-64 throughout."
    write_text(path, text + "\n")
    return text


@torch.no_grad()
def draw_task(learner: FeatureLearner, data: Dataset, *, seed: int, path: Path) -> Path:
    """Draw the task of median accuracy among 101 at one shot, which has more mistakes to look at than at five."""
    shape = TaskShape(5, 1, 10)
    measured = evaluate(
        learner, data.test, ways=shape.ways, shots=shape.shots, queries=shape.queries, tasks=101, seed=seed
    )
    median = np.argsort(measured.accuracies, kind="stable")[50:51]
    episodes = EpisodeSampler(data.test, shape, seed=seed).episodes(median, device_of(learner))
    with evaluating(learner, "float32"):
        scores = learner.scores(prepare_images(episodes, data.test.normalization))
    predicted = scores[0].argmax(-1).cpu().numpy()
    names = [data.test.class_names[position].lower() for position in episodes.classes[0].tolist()]
    title = "Multi-task learning, one example of each unseen character: a task of median accuracy"
    return pictures.save(pictures.task_picture(episodes, names, predicted=predicted, title=title), path)


def _new(name: str, data: Dataset, seed: int) -> FeatureLearner:
    ways = TRAINING[name].get("ways")
    learner = create_learner(name, data, backbone_options={"width": 64}, ways=ways, seed=seed, **LEARNERS.get(name, {}))
    assert isinstance(learner, FeatureLearner), "the demo shows learners of features"
    return learner


def _forget(run: Path) -> None:
    """Delete what an earlier demo left: training refuses to overwrite a trained run."""
    for file in [*run.glob("checkpoints/*.pt"), *run.glob("evaluation/*.json")]:
        file.unlink()
