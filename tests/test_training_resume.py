"""A run that was killed or interrupted anywhere, and resumed, is the run that was left alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toys
from training_toys import STEPS, at_step, toy_dataset, toy_learner, toy_train

import kshot.runs.checkpoints as checkpoints
import kshot.training.validation
from kshot.data.dataset import Normalization
from kshot.errors import CheckpointError, ConfigError
from kshot.training import TrainingInterrupted


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("undisturbed")
    toy_train(run=run)
    torch.set_num_threads(threads)
    return run


# Each epoch writes best.pt where it is better, and then last.pt; the first epoch always does both.
KILLS = ["step:2", f"step:{STEPS + 3}", "save:1", "save:2", "save:3"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder for each way to be killed."""
    folders = {where: tmp_path_factory.mktemp("killed") for where in KILLS}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pairs = [word for where, run in folders.items() for word in (where, str(run))]
    subprocess.run([sys.executable, training_toys.__file__, *pairs], env=environment, check=True, timeout=300)
    return folders


def assert_same_run(run: Path, other: Path) -> None:
    assert (run / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert len((run / "timing.csv").read_text().splitlines()) == len((other / "timing.csv").read_text().splitlines())
    for name in ("best.pt", "last.pt"):
        contents = [torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (run, other)]
        for part in ("learner", "optimizer"):
            if part in contents[0]:
                assert_equal_trees(contents[0][part], contents[1][part])
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.pt", "last.pt"]


def assert_equal_trees(first: object, second: object) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_equal_trees(first[name], second[name])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second):
            assert_equal_trees(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("where", KILLS)
def test_killed_and_resumed_is_bit_identical(where: str, killed: dict[str, Path], undisturbed: Path) -> None:
    run = killed[where]
    assert not (run / "metrics.csv").exists() or (run / "metrics.csv").read_text().count("\n") < 4
    toy_train(run=run, resume=True)
    assert_same_run(run, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, STEPS + 2, 2 * STEPS])
def test_a_signal_saves_after_the_step(number: int, step: int, tmp_path: Path, undisturbed: Path) -> None:
    before = signal.getsignal(number)
    learner = at_step(toy_learner(), step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(TrainingInterrupted, match=r"saved in .*resume"):
        toy_train(learner, run=tmp_path)
    assert signal.getsignal(number) is before
    counters = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["counters"]
    assert counters["epoch"] * STEPS + counters["step"] == step
    toy_train(run=tmp_path, resume=True)
    assert_same_run(tmp_path, undisturbed)


def test_the_exception_ends_a_program_like_ctrl_c() -> None:
    assert issubclass(TrainingInterrupted, KeyboardInterrupt)
    learner = at_step(toy_learner(), 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="nothing was saved"):
        toy_train(learner)


def test_time_limit_stops_resumably(tmp_path: Path, undisturbed: Path) -> None:
    result = toy_train(run=tmp_path, time_limit=0.0)
    assert (result.stopped, result.best_epoch, result.history) == ("time_limit", 0, [])
    assert "epoch 0" not in str(result)
    assert 0 < result.best_accuracy <= 1
    assert toy_train(run=tmp_path, resume=True).stopped == "max_epochs"
    assert_same_run(tmp_path, undisturbed)


@pytest.fixture
def slow_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation as it is, but 100 ms per task."""
    original = kshot.training.validation.evaluate

    def evaluate(*args: Any, tasks: int, **kwargs: Any) -> Any:
        time.sleep(0.1 * tasks)
        return original(*args, tasks=tasks, **kwargs)

    monkeypatch.setattr(kshot.training.validation, "evaluate", evaluate)


def test_the_first_validation_is_shortened_to_the_time_limit(
    tmp_path: Path, undisturbed: Path, slow_validation: None
) -> None:
    """Twenty validation tasks, as many as there are, take 2 s, and an epoch is over before the limit."""
    result = toy_train(run=tmp_path, time_limit=0.8 / 60)
    assert result.seconds < 1.8
    assert (result.stopped, result.best_epoch) == ("time_limit", 0)
    assert 2 <= result.validation_tasks < 20
    assert 0 < result.best_accuracy <= 1
    assert result.images_per_second > 0
    assert "in epoch 1 of at most 3, before a validation that would not fit" in result.ending
    assert toy_train(run=tmp_path, resume=True).stopped == "max_epochs"
    assert_same_run(tmp_path, undisturbed)


def test_a_validation_that_would_end_after_the_time_limit_is_not_begun(
    tmp_path: Path, undisturbed: Path, slow_validation: None
) -> None:
    toy_train(run=tmp_path, max_epochs=1)
    done = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["counters"]["seconds"]
    result = toy_train(run=tmp_path, resume=True, time_limit=(done + 0.8) / 60)
    assert (result.stopped, len(result.history), result.validation_tasks) == ("time_limit", 1, 20)
    assert "in epoch 2 of at most 3, before a validation that would not fit" in result.ending
    assert toy_train(run=tmp_path, resume=True).stopped == "max_epochs"
    assert_same_run(tmp_path, undisturbed)


def test_a_time_limit_within_the_first_epoch(tmp_path: Path) -> None:
    result = toy_train(run=tmp_path, time_limit=0.5 / 60, tasks_per_epoch=100_000)
    assert result.seconds < 1.5
    assert (result.stopped, result.best_epoch) == ("time_limit", 0)
    assert result.images_per_second > 0
    assert re.search(r"by the time limit, in epoch 1 of at most 3, after \d+ of 50000 steps", result.ending)


def test_more_epochs_continue_a_finished_run(tmp_path: Path, undisturbed: Path) -> None:
    toy_train(run=tmp_path, max_epochs=1)
    toy_train(run=tmp_path, resume=True)
    assert_same_run(tmp_path, undisturbed)


def test_a_run_that_says_less_of_its_data_can_be_resumed(tmp_path: Path, undisturbed: Path) -> None:
    """As versions of kshot wrote them that kept the dataset's name alone; what a run does say has to be so."""
    toy_train(run=tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints" / "last.pt"
    content = torch.load(last, weights_only=True)
    data = toy_dataset()
    other = replace(data, train=replace(data.train, normalization=Normalization((0.4,), (0.25,), "none")))
    with pytest.raises(ConfigError, match=r"data.normalization was .*0\.5.* and is .*0\.4"):
        toy_train(data=other, run=tmp_path, resume=True)
    content["config"]["data"] = {"name": "toy"}
    torch.save(content, last)
    toy_train(run=tmp_path, resume=True)
    assert_same_run(tmp_path, undisturbed)


def test_the_home_folder_is_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="is your home folder; name a folder for this run alone"):
        toy_train(run=tmp_path)
    assert not (tmp_path / "config.yaml").exists()


def test_a_trained_run_is_not_overwritten(undisturbed: Path) -> None:
    before = (undisturbed / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"holds a trained run.*resume=True"):
        toy_train(run=undisturbed)
    assert (undisturbed / "checkpoints" / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.1, "shots": 1}, r"training.learning_rate was 0.01 and is 0.1; training.shots was 2"),
        ({"seed": 1}, r"training.seed was 0 and is 1"),
    ],
)
def test_other_options_are_named(options: dict[str, float], message: str, undisturbed: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_train(run=undisturbed, resume=True, **options)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_longer_run_is_another_schedule(schedule: str, tmp_path: Path) -> None:
    toy_train(run=tmp_path, schedule=schedule, max_epochs=1)
    with pytest.raises(ConfigError, match="max_epochs"):
        toy_train(run=tmp_path, schedule=schedule, max_epochs=2, resume=True)


def test_another_learner_is_refused(undisturbed: Path) -> None:
    learner = toy_learner()
    learner.options = {**learner.options, "normalize_features": False}
    with pytest.raises(CheckpointError, match=r"another learner.*learner.normalize_features is True there and False"):
        toy_train(learner, run=undisturbed, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "foreign"])
def test_a_damaged_checkpoint_is_refused(damage: str, undisturbed: Path, tmp_path: Path) -> None:
    whole = (undisturbed / "checkpoints" / "last.pt").read_bytes()
    path = tmp_path / "checkpoints" / "last.pt"
    path.parent.mkdir()
    if damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"not a checkpoint", "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"last.pt is damaged or was not written by kshot"):
        toy_train(run=tmp_path, resume=True)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "ran").write_text, ("",))

    torch.save({"format": checkpoints.FORMAT, "payload": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="damaged or was not written"):
        checkpoints.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_another_format_is_named(tmp_path: Path) -> None:
    torch.save({"format": 99, "kshot": "7.0"}, tmp_path / "future.pt")
    with pytest.raises(CheckpointError, match=r"format 99, written by kshot 7.0"):
        checkpoints.load(tmp_path / "future.pt")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, full_disk: Any) -> None:
    toy_train(run=tmp_path, max_epochs=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    rows = (tmp_path / "metrics.csv").read_bytes()
    full = "previous one is untouched: the disk is full; free some space, and resume"
    with full_disk(".pt"), pytest.raises(CheckpointError, match=full):
        toy_train(run=tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    assert (tmp_path / "metrics.csv").read_bytes() == rows
    assert len(toy_train(run=tmp_path, resume=True).history) == 3


def test_a_full_disk_leaves_the_previous_metrics(tmp_path: Path, full_disk: Any) -> None:
    toy_train(run=tmp_path, max_epochs=1)
    rows = (tmp_path / "metrics.csv").read_bytes()
    learner = at_step(toy_learner(), STEPS, lambda: stack.enter_context(full_disk("metrics.csv")))
    with ExitStack() as stack, pytest.raises(CheckpointError, match=r"checkpoints are intact: the disk is full; free"):
        toy_train(learner, run=tmp_path, resume=True)
    assert (tmp_path / "metrics.csv").read_bytes() == rows
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]
    resumed = toy_train(run=tmp_path, resume=True)
    assert len(resumed.history) == 3
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    learner = at_step(toy_learner(), 1, lambda: pytest.fail("work had started"))
    with pytest.raises(ConfigError, match=r"cannot be written"):
        toy_train(learner, toy_dataset(), run=tmp_path / "file" / "run")
