"""The loop: what it counts, when it stops, what it keeps, what it shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm
from training_toys import (
    STEPS,
    ToyBackbone,
    at_step,
    load_best_weights,
    toy_learner,
    toy_train,
)

from kshot.learners import ProtoNet, Supervised
from kshot.training.state import TrainingState

HALF = torch.tensor(0.5)


def test_training_learns(tmp_path: Path) -> None:
    learner = toy_learner()
    result = toy_train(learner, run=tmp_path, max_epochs=8, learning_rate=0.03, optimizer="adam")
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    assert result.best_accuracy == max(row["validation_accuracy"] for row in result.history)
    assert result.best_accuracy > 0.6
    assert result.images_per_second > 0
    assert result.peak_memory > 50
    assert not learner.training


def test_the_best_epoch_is_kept(tmp_path: Path, scripted_validation: Any) -> None:
    seen: list[torch.Tensor] = []
    learner = toy_learner()
    calls = scripted_validation([0.3, 0.5, 0.5, 0.4])
    result = toy_train(learner, run=tmp_path, max_epochs=2)
    seen.append(learner.weight.detach().clone())
    again = toy_learner()
    calls = scripted_validation([0.3, 0.5, 0.5, 0.4])
    result = toy_train(again, max_epochs=4)
    assert (result.best_epoch, result.best_accuracy, result.best_ci95) == (2, 0.5, 0.01)
    assert torch.equal(again.weight, seen[0])
    assert torch.equal(load_best_weights(tmp_path)["weight"], seen[0])
    assert len({call[1:] for call in calls}) == 1  # the same validation tasks each time


@pytest.mark.parametrize(("patience", "epochs", "stopped"), [(3, 5, "patience"), (0, 8, "max_epochs")])
def test_early_stopping(patience: int, epochs: int, stopped: str, scripted_validation: Any) -> None:
    scripted_validation([0.3, 0.5, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1])
    result = toy_train(max_epochs=8, patience=patience)
    assert (len(result.history), result.stopped, result.best_epoch) == (epochs, stopped, 2)


def test_the_plateau_schedule_follows_validation(scripted_validation: Any) -> None:
    scripted_validation([0.5, 0.4, 0.4, 0.4, 0.6, 0.1])
    result = toy_train(max_epochs=6, plateau_patience=1, factor=0.1)
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.01] * 3 + [0.001] * 3)


def test_an_epoch_is_rounded_up_to_whole_steps() -> None:
    result = toy_train(max_epochs=1, meta_batch=3)
    assert result.history[0]["tasks"] == 9


@pytest.mark.parametrize("make", [lambda: ProtoNet(ToyBackbone()), lambda: Supervised(ToyBackbone(), num_classes=8)])
def test_other_learners_train_by_the_same_loop(make: Any) -> None:
    result = toy_train(make(), max_epochs=1, meta_batch=8, tasks_per_epoch=None if "Sup" in str(make) else 8)
    assert math.isfinite(result.history[0]["loss"])


def test_training_on_train_and_val_keeps_the_last_weights(tmp_path: Path) -> None:
    learner = toy_learner(12)
    result = toy_train(learner, run=tmp_path, train_on="train+val", schedule="constant", patience=0)
    last = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["learner"]
    assert math.isnan(result.best_accuracy)
    assert result.best_epoch == 3
    assert torch.equal(learner.weight, last["weight"])


def test_clipping_bounds_the_steps_of_training() -> None:
    """With SGD at rate 1 and one step, no weight moves further than the value that gradients are clipped at."""
    start = toy_learner().state_dict()
    options = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "max_epochs": 1, "tasks_per_epoch": 2}
    moved = {}
    for clip in (None, 1e-3):
        learner = toy_learner()
        toy_train(learner, clip_gradient_value=clip, **options)
        parameters = dict(learner.named_parameters())
        moved[clip] = max((weight - start[name]).abs().max().item() for name, weight in parameters.items())
    assert moved[None] > 0.01
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    learner = toy_learner()
    torch.manual_seed(5)
    toy_train(learner, max_epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_seeds_make_runs() -> None:
    losses = [toy_train(max_epochs=1, seed=seed).history[0]["loss"] for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_bf16_and_memory_format_reach_the_learner() -> None:
    seen = []
    learner = toy_learner()
    at_step(learner, 1, lambda: seen.append(learner.precision))
    toy_train(learner, max_epochs=1, precision="bf16")
    assert seen == ["bf16"]
    assert learner.backbone.convolve.weight.is_contiguous(memory_format=torch.channels_last)


def test_progress_shows_speed_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    toy_train(max_epochs=1, progress=True)
    line = capsys.readouterr().err
    assert all(word in line for word in ("epoch 1/1", "images/s", "task/s", "loss", "accuracy"))
    toy_train(max_epochs=1)
    assert capsys.readouterr().err == ""


def test_progress_divides_by_the_steps_that_were_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU the loss is read every so many steps, and the sums between two readings hold fewer than were made."""
    original = TrainingState.count_step
    monkeypatch.setattr(TrainingState, "count_step", lambda state, metrics, read_every: original(state, metrics, 3))
    shown: list[str] = []
    monkeypatch.setattr(tqdm, "set_postfix_str", lambda bar, text, refresh: shown.append(text))
    learner = toy_learner()
    monkeypatch.setattr(learner, "accumulate_gradients", lambda episodes: dict.fromkeys(("loss", "accuracy"), HALF))
    toy_train(learner, max_epochs=1, progress=True)
    numbers = [text.partition(", ")[2] for text in shown]
    assert numbers == ["", "", *["loss 0.5000, accuracy 50.0 %"] * (STEPS - 2)]
