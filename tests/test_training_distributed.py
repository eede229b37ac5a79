"""Two processes make the update of one; nothing else about a run may depend on how many there are."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_toys import TINY
from training_toys import toy_dataset, toy_learner, toy_train

from kshot.cli.train import EXAMPLES
from kshot.data.episodes import TaskShape
from kshot.errors import ConfigError
from kshot.runs.run import Run
from kshot.training.batches import StepTasks
from kshot.training.distributed import Processes

NORMALIZE_OVER = ("task", "batch")


def train_both_ways(folder: Path, rank: int = 0) -> None:
    """A short run for each choice of what BatchNorm normalises over.

    In float64, so that what differs between one process and two is rounding alone. nn.Dropout is off, because it draws
    from each process's own generator.
    """
    torch.set_num_threads(1)
    for normalize_over in NORMALIZE_OVER:
        learner = toy_learner(normalize_over=normalize_over).double()
        learner.backbone.plain_dropout.p = 0.0
        if rank > 0:
            learner.weight.data.zero_()  # every process starts from the weights of the first
        toy_train(learner, max_epochs=2, run=folder / normalize_over, meta_batch=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What one process and two processes made."""
    alone, shared = (tmp_path_factory.mktemp(f"processes{count}") for count in (1, 2))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(shared)]
    children = [subprocess.Popen(command, env=os.environ | torchrun | {"RANK": str(rank)}) for rank in range(2)]
    threads = torch.get_num_threads()
    train_both_ways(alone)
    torch.set_num_threads(threads)
    try:
        assert [child.wait(240) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    return [alone, shared]


@pytest.mark.parametrize("normalize_over", NORMALIZE_OVER)
def test_two_processes_make_the_update_of_one(normalize_over: str, folders: list[Path]) -> None:
    alone, shared = (
        torch.load(folder / normalize_over / "checkpoints" / "last.pt", weights_only=True)["learner"]
        for folder in folders
    )
    for name, tensor in alone.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(shared[name], tensor, rtol=1e-9, atol=1e-12, msg=name)
        else:
            assert torch.equal(shared[name], tensor), name
    assert not torch.equal(alone["weight"], toy_learner().double().weight)


@pytest.mark.parametrize("normalize_over", NORMALIZE_OVER)
def test_metrics_are_those_of_all_tasks(normalize_over: str, folders: list[Path]) -> None:
    tables = [np.genfromtxt(folder / normalize_over / "metrics.csv", delimiter=",", names=True) for folder in folders]
    for column in tables[0].dtype.names:
        np.testing.assert_allclose(tables[1][column], tables[0][column], rtol=1e-6)


@pytest.mark.slow
def test_torchrun_starts_the_command_with_its_option_run(tiny_root: Path, tmp_path: Path) -> None:
    """As the help writes it: without the ``--``, torchrun takes ``--run`` for an option of its own."""
    assert any("-m -- kshot train" in example for example in EXAMPLES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "--"]
    words = ["kshot", "train", *TINY, "--meta-batch", "2", "--root", str(tiny_root), "--run", str(tmp_path / "run")]
    subprocess.run(torchrun + words, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_processes_wait_for_the_first_to_write_before_they_read_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, end = [], Run.end
    monkeypatch.setattr(Processes, "wait", lambda self: order.append("wait"))
    monkeypatch.setattr(Run, "end", lambda self, *what, **named: order.append("end") or end(self, *what, **named))
    toy_train(toy_learner(), run=tmp_path / "run", max_epochs=1)
    assert order == ["wait", "end"]


def test_ranks_take_disjoint_contiguous_shares() -> None:
    learner, data = toy_learner(), toy_dataset()
    sampler = learner.sampler(data.train, TaskShape(3, 2, 2), seed=0)

    def numbers(rank: int, count: int) -> np.ndarray:
        processes = Processes("cpu")
        processes.rank, processes.count = rank, count
        tasks = StepTasks(
            sampler, normalization=data.train.normalization, augmentation=None, meta_batch=6, processes=processes
        )
        return tasks.numbers(4, 6)

    np.testing.assert_array_equal(numbers(0, 1), np.arange(24, 36))
    np.testing.assert_array_equal(numbers(1, 3), [26, 27, 32, 33])
    np.testing.assert_array_equal(np.sort(np.concatenate([numbers(rank, 3) for rank in range(3)])), numbers(0, 1))


def test_a_meta_batch_that_cannot_be_shared_is_refused() -> None:
    processes = Processes("cpu")
    processes.count = 4
    with pytest.raises(ConfigError, match=r"meta batch of 6 tasks .* 4 processes; choose a multiple, such as"):
        processes.check_meta_batch(6)
    with pytest.raises(ConfigError, match="meta_batch=4"):
        processes.check_meta_batch(2)
    processes.check_meta_batch(8)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=r"torch sees no GPU here; choose device=cpu"):
        toy_train(device="cuda")


if __name__ == "__main__":
    train_both_ways(Path(sys.argv[1]), int(os.environ["RANK"]))
