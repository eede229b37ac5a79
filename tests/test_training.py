"""The loop: what it counts, when it stops, what it keeps, what it shows."""

from __future__ import annotations

import inspect
import math
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_split
from tqdm import tqdm
from training_toys import (
    STEPS,
    ToyBackbone,
    at_step,
    load_best_weights,
    toy_learner,
    toy_train,
)

import kshot.training.progress
from kshot.errors import ConfigError
from kshot.learners import ProtoNet, Supervised
from kshot.measures import ACCURACY
from kshot.training import TrainingOptions, train
from kshot.training.halts import TimeLimit
from kshot.training.options import ResolvedOptions
from kshot.training.progress import ProgressLine
from kshot.training.state import Counters, TrainingState

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


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "100 epochs will take about 5.6 hours, plus the time of validation; it may stop early (patience). "),
        ({"patience": 0, "max_epochs": 9}, "9 epochs will take about 30 minutes, plus the time of validation. "),
        ({"max_epochs": 2}, None),
        ({"time_limit": 5.0}, None),
        ({"progress": False}, None),
    ],
)
def test_a_long_training_says_once_how_long_it_will_take(
    options: dict[str, Any], sentence: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred steps per epoch, of 2 s each."""
    now = [0.0]
    monkeypatch.setattr(kshot.training.progress, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    settings = ResolvedOptions(**{"meta_batch": 2, "tasks_per_epoch": 200, "max_epochs": 100} | options)
    state: Any = types.SimpleNamespace(counters=Counters(), options=settings, measure=ACCURACY, writes=True)
    bar = ProgressLine(state, images_per_step=8)
    for _ in range(2):
        bar.start_epoch()
        for _ in range(20):
            now[0] += 2.0
            bar.advance(steps_read=0)
    bar.close()
    said = capsys.readouterr().err
    if sentence is None:
        assert "will take" not in said
    else:
        assert (
            said.count(f"{sentence}To train for less, choose a smaller max_epochs (--max-epochs) or a time_limit") == 1
        )


@pytest.mark.parametrize(
    ("changes", "latest"),
    [
        ({}, 54),  # a tenth of the limit is kept
        ({"learner": toy_learner(), "images": 1000}, 40),  # which pass at 50 images/s
        ({"learner": toy_learner(), "images": 100_000}, 30),  # half of the limit at most
        ({"images": None}, 60),  # nothing is held out
        ({"best_epoch": 1}, 60),
        ({"limit": None}, math.inf),
    ],
)
def test_time_is_kept_for_the_first_validation(changes: dict[str, Any], latest: float) -> None:
    given = {"learner": None, "images": 1000, "best_epoch": 0, "limit": 1.0} | changes
    held_out = make_split([given["images"]], size=4) if given["images"] else None
    counters = Counters(step=10, best_epoch=given["best_epoch"])
    state: Any = types.SimpleNamespace(
        learner=given["learner"], counters=counters, options=TrainingOptions(time_limit=given["limit"])
    )
    limit = TimeLimit(state, held_out, images_per_step=100)
    for seconds in range(25, 70):
        state.seconds, state.seconds_of_epoch = seconds, 20.0
        assert limit.ends_steps() == (seconds > latest)


@pytest.mark.parametrize(
    ("images", "given", "epochs"),
    [
        (80, {}, 4_167),  # an epoch of the toys is 8 tasks of 12 images, and 400,000 images the fewest
        (80, {"tasks_per_epoch": 1000}, 34),
        (10_000, {"tasks_per_epoch": 1000}, 42),  # 500,000 images, each of them 50 times
        (10_000, {"tasks_per_epoch": 1000, "max_epochs": 3}, 3),
        (1_000_000, {"tasks_per_epoch": 1000}, 167),  # 2,000,000 images
    ],
)
def test_the_default_number_of_epochs_follows_the_images(images: int, given: dict[str, Any], epochs: int) -> None:
    """What is resolved is what config.yaml holds, so that a resumed run has the same number."""
    split = make_split([images // 8] * 8, size=4)
    options = TrainingOptions.of({"ways": 3, "shots": 2, "queries": 2, "meta_batch": 2, "tasks_per_epoch": 8} | given)
    assert options.resolved(toy_learner(), split).max_epochs == epochs


def test_the_default_number_of_epochs_counts_the_images_that_a_learner_draws() -> None:
    split = make_split([1250] * 8, size=4)
    assert TrainingOptions().resolved(Supervised(ToyBackbone(), num_classes=8), split).max_epochs == 50


def test_the_default_number_of_epochs_of_functions_counts_points() -> None:
    data = kshot.load("sinusoids")
    learner = kshot.create_learner("maml", data, backbone="mlp")
    assert TrainingOptions().resolved(learner, data.train).max_epochs == math.ceil(2_000_000 / 1602 / 10)


def test_the_keywords_of_training_are_written_once() -> None:
    """Type checkers, editors and notebooks see the fields of the dataclass as keywords."""
    keywords = inspect.signature(train).parameters
    names = [field.name for field in fields(TrainingOptions)]
    assert list(keywords) == ["learner", "data", *names, "run", "resume"]
    assert keywords["shots"].default == TrainingOptions.shots == 5
    with pytest.raises(ConfigError, match=r"training has no option 'shot' \(did you mean 'shots'\?\)"):
        toy_train(shot=5)


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
