"""A learner and data small enough to train in a blink, shared by the training tests and the processes they start."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from conftest import make_dataset, make_split
from torch import Tensor, nn

import kshot.files
import kshot.runs.checkpoints
from kshot.backbones import Backbone, BatchNorm2d
from kshot.backbones.dropout import DropBlock, Dropout
from kshot.data.dataset import Dataset
from kshot.learners import MultiTask
from kshot.training import TrainingResult, train

STEPS = 4  # an epoch
OPTIONS: dict[str, Any] = {
    "ways": 3,
    "shots": 2,
    "queries": 2,
    "meta_batch": 2,
    "tasks_per_epoch": 2 * STEPS,
    "max_epochs": 3,
    "validation_tasks": 20,
    "validation_queries": 4,
    "learning_rate": 0.01,
    "progress": False,
}


class ToyBackbone(Backbone):
    """One block with everything that a resumed run could get wrong: both kinds of dropout, a ramp, BatchNorm."""

    feature_size = 6

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(1, 6, 3)
        self.layers = nn.Sequential(BatchNorm2d(6), nn.ReLU(), DropBlock(0.2, size=2, ramp_tasks=20), Dropout(0.1))
        self.plain_dropout = nn.Dropout(0.1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layers(self.convolve(images.to(self.convolve.weight.dtype)))
        return self.plain_dropout(maps.mean((2, 3)))


def toy_dataset() -> Dataset:
    """Eight training classes and four of validation and of test, ten images each, 8x8."""
    splits = {
        name: make_split([10] * classes, name=name, seed=seed)
        for seed, (name, classes) in enumerate([("train", 8), ("val", 4), ("test", 4), ("train+val", 12)])
    }
    return make_dataset(splits)


def toy_data_16() -> Dataset:
    """Twelve classes of ten images, 16x16, which are in every split."""
    names = ("train", "val", "test", "train+val")
    return make_dataset({name: make_split([10] * 12, name=name, size=16) for name in names})


def toy_learner(num_classes: int = 8, normalize_over: Literal["task", "batch"] = "task") -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(ToyBackbone(), num_classes=num_classes, ways=3, normalize_over=normalize_over)


def toy_train(learner: MultiTask | None = None, data: Dataset | None = None, **options: Any) -> TrainingResult:
    result = train(learner or toy_learner(), data or toy_dataset(), **OPTIONS | options).result
    assert result is not None
    return result


def load_best_weights(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "checkpoints" / "best.pt", weights_only=True)["learner"]


def at_step(learner: MultiTask, step: int, act: Any) -> MultiTask:
    """The learner with `act` called before the gradients of this step, counted from 1."""
    original, calls = learner.accumulate_gradients, []

    def accumulate_gradients(episodes: Any) -> dict[str, Tensor]:
        calls.append(None)
        if len(calls) == step:
            act()
        return original(episodes)

    learner.accumulate_gradients = accumulate_gradients  # type: ignore[method-assign]
    return learner


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(where: str, run: Path) -> None:
    """Killed in a step ("step:6"), or in the middle of the n-th write of a checkpoint ("save:3")."""
    kind, number = where.split(":")
    learner = toy_learner()
    if kind == "step":
        at_step(learner, int(number), die)
    else:
        saves, write_atomically = [], kshot.files.write_atomically

        def half(file: Any) -> None:
            file.write(b"half a checkpoint")
            file.flush()
            die()

        def save_half(path: Path, write: Any) -> None:
            saves.append(None)
            write_atomically(path, write if len(saves) < int(number) else half)

        kshot.runs.checkpoints.write_atomically = save_half
    toy_train(learner, run=run)


if __name__ == "__main__":
    # One import of torch, and a fork for each pair of arguments; exits with 0 when SIGKILL ended all of them.
    torch.set_num_threads(1)
    import torch._dynamo  # seconds, which every child's first optimizer step would take again

    statuses = []
    for where, run in zip(sys.argv[1::2], sys.argv[2::2]):
        child = os.fork()
        if child == 0:
            train_until_killed(where, Path(run))
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.exit(statuses != [-signal.SIGKILL] * len(statuses))
