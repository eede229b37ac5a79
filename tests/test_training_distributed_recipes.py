"""Two processes make the update of one for every kind of learner, and one that is killed leaves a run to go on with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kshot import data as datasets
from kshot.learners import learners
from kshot.learners.base import FeatureLearner
from kshot.learners.initialization import InitializationLearner
from kshot.runs.run import Run
from kshot.studies import study_file
from kshot.studies.build import build_learner, training_options
from kshot.studies.cells import Cell, cells_of
from kshot.training import train

STUDY = """
data: [tiny]
common: {ways: 4, queries: 2, meta_batch: 2, tasks_per_epoch: 4, max_epochs: 2, validation_tasks: 4,
         validation_queries: 2, schedule: constant, patience: 0, milestones: null, factor: 0.1, backbone.name: conv4,
         backbone.width: 4, backbone.pooling: flatten}
cells:
  joint: {recipe: mtl-cifar-fs-5shot-conv4}
  metric: {recipe: protonet-cifar-fs-5shot-conv4}
  closed-form: {recipe: metaoptnet-cifar-fs-5way-5shot}
  gradients: {recipe: maml-cifar-fs-5way-1shot}
  first-order: {recipe: reptile-cifar-fs-5way-1shot, options: {queries: 0, shots: 5, validation_shots: 2}}
  modulated: {recipe: tadam-fc100-5way-5shot}
  no-tasks: {recipe: supervised-cifar-fs-conv4}
"""
CELLS = {cell.entry: cell for cell in cells_of(study_file.parse("kinds", STUDY))}
SLOW_STEP = 0.3  # seconds


def train_cell(cell: Cell, root: Path, run: Path, rank: int = 0, *, slow: bool = False, resume: bool = False) -> None:
    """In float64, images too, so that what differs between one process and two is rounding alone."""
    data = datasets.load(cell.dataset, root)
    learner = build_learner(cell.options, data, seed=0).double()
    first = next(part for part in learner.backbone.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_pre_hook(lambda part, images: (images[0].double(),))
    if rank > 0:
        for parameter in learner.parameters():
            parameter.data.zero_()  # every process starts from the weights of the first
    if slow:
        original = learner.accumulate_gradients

        def accumulate_gradients(episodes: object) -> dict[str, Tensor]:
            time.sleep(SLOW_STEP)
            return original(episodes)

        learner.accumulate_gradients = accumulate_gradients  # type: ignore[method-assign]
    epochs = {"max_epochs": 8} if slow else {}
    train(learner, data, run=run, resume=resume, **training_options(cell, **epochs).plain())


def start_both(*words: object) -> list[subprocess.Popen[bytes]]:
    """The two processes of a training, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, words)]
    return [
        subprocess.Popen(command, env=os.environ | torchrun | {"RANK": str(rank)}, stderr=subprocess.DEVNULL)
        for rank in range(2)
    ]


@pytest.fixture(scope="module")
def folders(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What one process and two processes made of every recipe."""
    alone, shared = (tmp_path_factory.mktemp(f"processes{count}") for count in (1, 2))
    children = start_both("train", tiny_root, shared)
    try:
        assert [child.wait(400) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    for name, cell in CELLS.items():
        train_cell(cell, tiny_root, alone / name)
    return [alone, shared]


def test_there_is_a_recipe_of_every_kind():
    kinds = [learners[cell.options["learner"]["name"]] for cell in CELLS.values()]
    for base in (FeatureLearner, InitializationLearner):
        assert any(issubclass(kind, base) for kind in kinds)
    assert any(not issubclass(kind, (FeatureLearner, InitializationLearner)) for kind in kinds)


def state_of(folder: Path, name: str) -> dict[str, Tensor]:
    return torch.load(folder / name / "checkpoints" / "last.pt", weights_only=True)["learner"]


def columns_of(folders: list[Path], name: str) -> list[np.ndarray]:
    return [np.genfromtxt(folder / name / "metrics.csv", delimiter=",", names=True) for folder in folders]


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_two_processes_make_the_update_of_one(name: str, folders: list[Path], tiny_root: Path) -> None:
    alone, shared = (state_of(folder, name) for folder in folders)
    start = build_learner(CELLS[name].options, datasets.load("tiny", tiny_root), seed=0).double()
    parameters = dict(start.named_parameters())
    moved = max((alone[key] - value).abs().max().item() for key, value in parameters.items())
    assert moved > 1e-5
    for key in parameters:
        torch.testing.assert_close(shared[key], alone[key], rtol=1e-6, atol=1e-6 * moved, msg=key)
    one, two = columns_of(folders, name)
    for column in ("loss", "accuracy"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_two_processes_leave_the_running_statistics_of_one(name: str, folders: list[Path]) -> None:
    alone, shared = (state_of(folder, name) for folder in folders)
    for key, tensor in alone.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(shared[key], tensor, rtol=1e-6, atol=1e-9, msg=key)
        else:
            assert torch.equal(shared[key], tensor), key
    one, two = columns_of(folders, name)
    np.testing.assert_allclose(two["validation_accuracy"], one["validation_accuracy"], rtol=1e-6)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    """The other process does not wait for ever; both together go on to what an undisturbed run has."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for child in start_both("slow", tiny_root, whole):
        child.wait(200)
    first, second = start_both("slow", tiny_root, stopped)
    try:
        while not (stopped / "metrics.csv").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second.send_signal(signal.SIGKILL)
        assert first.wait(120) != 0
        assert len(Run(stopped).metrics()["epoch"]) < 8
        again = start_both("resume", tiny_root, stopped)
        assert [child.wait(200) for child in again] == [0, 0]
    finally:
        first.kill()
        second.kill()
    for file in ("metrics.csv", "checkpoints/best.pt"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, prepared, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    number = int(os.environ["RANK"])
    if what == "train":
        for kind, each in CELLS.items():
            train_cell(each, prepared, place / kind, number)
    else:
        train_cell(CELLS["joint"], prepared, place, number, slow=True, resume=what == "resume")
