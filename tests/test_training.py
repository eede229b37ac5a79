"""The loop: what it feeds, what it counts, when it stops, what it keeps, and what it refuses before it starts."""

from __future__ import annotations

import csv
import inspect
import json
import math
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import make_split
from torch import nn
from tqdm import tqdm
from training_toys import OPTIONS, STEPS, ToyBackbone, at_step, toy_dataset, toy_learner, toy_train

import kshot.training.validation as validation
from kshot.backbones import Conv4
from kshot.data.augmentation import PhotoAugmentation, normalize, prepare_images
from kshot.data.dataset import Dataset, Normalization
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.learners import MultiTask, ProtoNet, Supervised
from kshot.training import load_run, train
from kshot.training.batches import StepTasks
from kshot.training.distributed import Processes
from kshot.training.state import TrainingState

HALF = torch.tensor(0.5)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces validation by given accuracies; returns the list of calls."""

    def install(accuracies: Sequence[float]) -> list[tuple[Any, ...]]:
        remaining: Iterator[float] = iter(accuracies)
        calls: list[tuple[Any, ...]] = []

        def evaluate(*args: Any, **kwargs: Any) -> types.SimpleNamespace:
            calls.append(args)
            return types.SimpleNamespace(mean=next(remaining), ci95=0.01)

        monkeypatch.setattr(validation, "evaluate", evaluate)
        return calls

    return install


def test_training_learns(tmp_path: Path) -> None:
    learner = toy_learner()
    result = toy_train(learner, run=tmp_path, max_epochs=8, learning_rate=0.03, optimizer="adam")
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    assert result.best_accuracy == max(row["validation_accuracy"] for row in result.history)
    assert result.best_accuracy > 0.6
    assert result.images_per_second > 0
    assert not learner.training


def test_the_best_epoch_is_kept(tmp_path: Path, scripted: Any) -> None:
    seen: list[torch.Tensor] = []
    learner = toy_learner()
    calls = scripted([0.3, 0.5, 0.5, 0.4])
    result = toy_train(learner, run=tmp_path, max_epochs=2)
    seen.append(learner.weight.detach().clone())
    again = toy_learner()
    calls = scripted([0.3, 0.5, 0.5, 0.4])
    result = toy_train(again, max_epochs=4)
    assert (result.best_epoch, result.best_accuracy, result.best_ci95) == (2, 0.5, 0.01)
    assert torch.equal(again.weight, seen[0])
    assert torch.equal(load_best_weights(tmp_path)["weight"], seen[0])
    assert len({call[1:] for call in calls}) == 1  # the same validation tasks each time


def load_best_weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "best.pt", weights_only=True)["learner"]


@pytest.mark.parametrize(("patience", "epochs", "stopped"), [(3, 5, "patience"), (0, 8, "max_epochs")])
def test_early_stopping(patience: int, epochs: int, stopped: str, scripted: Any) -> None:
    scripted([0.3, 0.5, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1])
    result = toy_train(max_epochs=8, patience=patience)
    assert (len(result.history), result.stopped, result.best_epoch) == (epochs, stopped, 2)


def test_the_plateau_schedule_follows_validation(scripted: Any) -> None:
    scripted([0.5, 0.4, 0.4, 0.4, 0.6, 0.1])
    result = toy_train(max_epochs=6, plateau_patience=1, factor=0.1)
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.01] * 3 + [0.001] * 3)


def test_metrics_csv_has_a_row_for_each_epoch(tmp_path: Path) -> None:
    result = toy_train(run=tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["tasks"] for row in rows] == ["8", "16", "24"]
    for row, kept in zip(rows, result.history):
        assert list(row) == [
            *("epoch", "tasks", "loss", "accuracy", "validation_accuracy", "validation_ci95", "learning_rate")
        ]
        assert all(float(row[name]) == kept[name] for name in row)
    timing = list(csv.DictReader((tmp_path / "timing.csv").open()))
    assert float(timing[0]["images_per_second"]) == pytest.approx(12 * float(timing[0]["tasks_per_second"]))


def test_an_epoch_is_rounded_up_to_whole_steps() -> None:
    result = toy_train(max_epochs=1, meta_batch=3)
    assert result.history[0]["tasks"] == 9


def test_what_a_run_says_about_itself(tmp_path: Path) -> None:
    toy_train(MultiTask(Conv4(2, 1, 16), 12, ways=3), toy_data_16(), run=tmp_path, max_epochs=1)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["data"] == {
        "name": "toy",
        "image_shape": [1, 16, 16],
        "normalization": {"mean": [0.5], "std": [0.25], "augment": "none"},
    }
    assert config["backbone"]["name"] == "conv4"
    assert config["learner"]["name"] == "mtl"
    own = ("learner", "data", "run", "resume")
    assert list(config["training"]) == [name for name in inspect.signature(train).parameters if name not in own]
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert {"kshot", "git_commit", "python", "numpy", "cpu", "threads", "platform", "command"} <= environment.keys()


def toy_data_16() -> Any:
    from conftest import make_split

    from kshot.data.dataset import Dataset

    splits = [make_split([10] * 12, name=name, size=16) for name in ("train", "val", "test", "train+val")]
    return Dataset("toy", *splits)


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_run_can_be_loaded(which: Any, tmp_path: Path, scripted: Any) -> None:
    data, learner = toy_data_16(), MultiTask(Conv4(2, 1, 16), 12, ways=3, normalize_features=False)
    scripted([0.5, 0.4])
    toy_train(learner, data, run=tmp_path, max_epochs=2)
    loaded, same = load_run(tmp_path, data, checkpoint=which)
    assert same is data
    assert not loaded.training
    assert loaded.options["normalize_features"] is False
    assert torch.equal(loaded.weight, learner.weight) == (which == "best")


def test_load_run_explains_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        load_run(tmp_path)
    toy_train(run=tmp_path, max_epochs=1)
    with pytest.raises(ConfigError, match=r"backbone ToyBackbone is not registered.*load_run\(run, learner=...\)"):
        load_run(tmp_path, toy_dataset())
    loaded, _ = load_run(tmp_path, toy_dataset(), learner=toy_learner())
    assert torch.equal(loaded.weight, load_best_weights(tmp_path)["weight"])
    with pytest.raises(CheckpointError, match=r"learner.num_classes is 8 there and 9 here"):
        load_run(tmp_path, toy_dataset(), learner=toy_learner(9))
    (tmp_path / "checkpoints" / "best.pt").unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_run(tmp_path, toy_dataset())


@pytest.mark.parametrize("make", [lambda: ProtoNet(ToyBackbone()), lambda: Supervised(ToyBackbone(), num_classes=8)])
def test_other_learners_train_by_the_same_loop(make: Any) -> None:
    result = toy_train(make(), max_epochs=1, meta_batch=8, tasks_per_epoch=None if "Sup" in str(make) else 8)
    assert math.isfinite(result.history[0]["loss"])


@pytest.mark.parametrize(("within_groups", "pure"), [(True, True), (False, False), (None, False)])
def test_training_and_validation_tasks_come_from_one_group(
    within_groups: bool | None, pure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[Any]] = {"train": [], "val": []}
    original = EpisodeSampler.rows

    def rows(sampler: EpisodeSampler, numbers: Any) -> Any:
        found = original(sampler, numbers)
        drawn[sampler.split.name].extend(np.asarray(sampler.split.groups)[found.classes])
        return found

    monkeypatch.setattr(EpisodeSampler, "rows", rows)
    splits = [make_split([10] * 8, name=name, groups=["a", "b"] * 4) for name in ("train", "val", "test", "train+val")]
    toy_train(toy_learner(), Dataset("toy", *splits), max_epochs=1, within_groups=within_groups)
    for groups in drawn.values():
        assert len(groups) >= 8
        assert all(len(set(task)) == 1 for task in groups) == pure


def test_supervised_epochs_pass_over_each_image_once() -> None:
    learner, seen = Supervised(ToyBackbone(), num_classes=8), []
    original = learner.accumulate_gradients

    def accumulate_gradients(episodes: Episodes) -> Any:
        seen.extend(episodes.support.flatten(1).sum(1).tolist())
        return original(episodes)

    learner.accumulate_gradients = accumulate_gradients  # type: ignore[method-assign]
    result = toy_train(learner, max_epochs=1, meta_batch=10, tasks_per_epoch=None)
    data = toy_dataset().train
    expected = normalize(torch.from_numpy(data.images), data.normalization).flatten(1).sum(1)
    assert result.history[0]["tasks"] == 80
    np.testing.assert_allclose(sorted(seen), sorted(expected.tolist()), rtol=1e-4, atol=1e-3)


def test_training_on_train_and_val_keeps_the_last_weights(tmp_path: Path) -> None:
    learner = toy_learner(12)
    result = toy_train(learner, run=tmp_path, train_on="train+val", schedule="constant", patience=0)
    last = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["learner"]
    assert math.isnan(result.best_accuracy)
    assert result.best_epoch == 3
    assert torch.equal(learner.weight, last["weight"])


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 9}, "toy/train has 8 classes, too few for 9 ways"),
        ({"validation_ways": 5}, "toy/val has 4 classes, too few for 5 ways; choose fewer.*by validation_ways"),
        (
            {"validation_queries": 15},
            r"class 'val-class-0' has 10 images, but 2 shots \+ 15 queries need 17.*by .*validation_queries",
        ),
        ({"shots": 6, "queries": 6}, "toy/train: class 'train-class-0' has 10 images"),
        ({"meta_batch": 0}, "meta_batch is 0, but must be at least 1"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"validation_ways": 0}, "validation_ways is 0, but must be at least 2"),
        ({"validation_shots": 0}, "validation_shots is 0, but must be at least 1"),
        ({"optimizer": "sgd", "momentum": -1.0}, "momentum is -1.0, but must be at least 0"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum is 1.0, but must be below 1"),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, "nesterov looks ahead along the momentum"),
        ({"factor": 1.5}, "factor is 1.5, but the plateau schedule lowers the rate"),
        ({"factor": 0.0}, "factor is 0.0, but must be above 0"),
        ({"device": "gpu"}, "no device 'gpu'; choose auto, cpu"),
        ({"optimizer": "adagrad"}, "no optimizer 'adagrad'; choose one of: radam"),
        ({"optimizer": "adam", "nesterov": True}, "momentum and nesterov belong to sgd"),
        ({"schedule": "linear"}, "no schedule 'linear'"),
        ({"schedule": "step"}, "step needs them"),
        ({"milestones": [3]}, "schedule is 'plateau' and milestones are"),
        ({"schedule": "step", "milestones": [1, 2], "factor": [0.5]}, "1 factors were given for 2 milestones"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"train_on": "train+val"}, r"holds nothing out.*patience=0"),
        ({"train_on": "test+val"}, "no split 'test\\+val'"),
        ({"resume": True}, "nothing to resume without a run folder"),
        ({"loggers": ["tensorboard"]}, "loggers write into the run folder"),
    ],
)
def test_bad_options_are_refused_before_work(options: dict[str, Any], message: str) -> None:
    learner = at_step(toy_learner(), 1, lambda: pytest.fail("work had started"))
    with pytest.raises((ConfigError, DataError), match=message):
        toy_train(learner, **options)


def test_a_learner_for_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mtl was built with num_classes=7, but toy/train has num_classes=8"):
        toy_train(toy_learner(7))
    with pytest.raises(ConfigError, match=r"conv4 was built with in_channels=3, but toy/train has in_channels=1"):
        toy_train(MultiTask(Conv4(2, 3, 16), 12), toy_data_16())
    with pytest.raises(ConfigError, match=r"built for 2 features an image and gives 8 for .*8 x 8; .*image_size=8"):
        toy_train(MultiTask(flat_backbone(1, 2), 8))
    with pytest.raises(ConfigError, match=r"Sequential cannot take .* 1 x 8 x 8: .*in_channels=1 and image_size=8"):
        toy_train(MultiTask(flat_backbone(3, 2), 8))
    split = make_split([10] * 8, size=32)
    with pytest.raises(ConfigError, match=r"Conv4 was built for 2 features an image and gives 8 for the images of toy"):
        toy_train(MultiTask(Conv4(2, 1), 8), Dataset("toy", split, split, split, split))


def flat_backbone(channels: int, feature_size: int) -> Any:
    """Somebody's own network, which has no option that says what images it takes."""
    network = nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network.feature_size = feature_size
    return network


def test_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, float]] = []
    run = types.SimpleNamespace(
        log=lambda numbers, step: logged.append((step, numbers["loss"])), finish=lambda: logged.append((0, 0.0))
    )
    started: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **o: started.update(o) or run))
    result = toy_train(run=tmp_path, loggers=["wandb"], max_epochs=2)
    assert logged == [(row["epoch"], row["loss"]) for row in result.history] + [(0, 0.0)]
    assert started["config"]["training"]["max_epochs"] == 2


@pytest.mark.parametrize(("logger", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_logger_says_what_to_install(
    logger: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install kshot\[{logger}\]"):
        toy_train(run=tmp_path, loggers=[logger], max_epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_logger_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no logger 'comet'; choose from: tensorboard, wandb"):
        toy_train(run=tmp_path, loggers=["comet"])
    assert list(tmp_path.iterdir()) == []


def step_tasks(augmentation: PhotoAugmentation | None = None) -> StepTasks:
    split = toy_dataset().train
    sampler = EpisodeSampler(split, TaskShape(3, 2, 2), seed=0)
    return StepTasks(sampler, split.normalization, augmentation, 2, Processes("cpu"))


def test_blocks_of_steps_hold_the_same_tasks_wherever_they_start() -> None:
    one_by_one, in_blocks = step_tasks(PhotoAugmentation(1)), step_tasks(PhotoAugmentation(1))
    in_blocks._steps_at_once = 3
    expected = list(one_by_one.steps(0, 8))
    for first in (0, 2, 3, 7):
        found = list(in_blocks.steps(first, 8))
        assert len(found) == 8 - first
        for one, other in zip(expected[first:], found):
            assert torch.equal(one.images(), other.images())
            assert torch.equal(one.classes, other.classes)
            np.testing.assert_array_equal(one.keys, other.keys)


def test_prepared_images_are_augmented_in_sequence_and_normalised() -> None:
    split = toy_dataset().train
    raw = EpisodeSampler(split, TaskShape(3, 2, 2), seed=0).episodes(np.arange(2))
    normalization = Normalization((0.4,), (0.2,))
    plain = prepare_images(raw, normalization)
    torch.testing.assert_close(plain.query, (raw.query.movedim(-1, 2).float() / 255 - 0.4) / 0.2)
    assert plain.support.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    augmentation = PhotoAugmentation(1)
    expected = normalize(augmentation(raw.images(), raw.keys), normalization)
    assert torch.equal(prepare_images(raw, normalization, augmentation).images(), expected)


def test_steps_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, classes = toy_learner(), []
    original = learner.accumulate_gradients

    def accumulate_gradients(episodes: Episodes) -> Any:
        classes.append(episodes.classes)
        return original(episodes)

    learner.accumulate_gradients = accumulate_gradients  # type: ignore[method-assign]
    toy_train(learner, max_epochs=2)
    sampler = EpisodeSampler(toy_dataset().train, TaskShape(3, 2, 2), seed=0)
    expected = sampler.rows(np.arange(2 * STEPS * OPTIONS["meta_batch"])).classes
    np.testing.assert_array_equal(torch.cat(classes).numpy(), expected)
