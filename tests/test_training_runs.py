"""What a run writes, what it says about itself, and how it is loaded."""

from __future__ import annotations

import csv
import json
import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_toys import (
    load_best_weights,
    toy_data_16,
    toy_learner,
    toy_train,
)

from kshot.backbones import Conv4
from kshot.errors import CheckpointError, ConfigError
from kshot.learners import MultiTask
from kshot.runs.run import Run
from kshot.training import TrainingOptions


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


def test_what_a_run_says_about_itself(tmp_path: Path) -> None:
    toy_train(
        MultiTask(Conv4(2, in_channels=1, image_size=16), num_classes=12, ways=3),
        toy_data_16(),
        run=tmp_path,
        max_epochs=1,
    )
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["data"] == {
        "name": "toy",
        "image_shape": [1, 16, 16],
        "normalization": {"mean": [0.5], "std": [0.25], "augment": "none"},
    }
    assert config["backbone"]["name"] == "conv4"
    assert config["learner"]["name"] == "mtl"
    assert list(config["training"]) == [field.name for field in fields(TrainingOptions)]
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert {"kshot", "git_commit", "python", "numpy", "cpu", "threads", "platform", "command"} <= environment.keys()


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_run_can_be_loaded(which: Any, tmp_path: Path, scripted_validation: Any) -> None:
    data, learner = (
        toy_data_16(),
        MultiTask(Conv4(2, in_channels=1, image_size=16), num_classes=12, ways=3, normalize_features=False),
    )
    scripted_validation([0.5, 0.4])
    toy_train(learner, data, run=tmp_path, max_epochs=2)
    loaded = Run(tmp_path).load(checkpoint=which)
    assert not loaded.training
    assert loaded.options["normalize_features"] is False
    assert torch.equal(loaded.weight, learner.weight) == (which == "best")


def test_a_run_explains_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        Run(tmp_path).load()
    toy_train(run=tmp_path, max_epochs=1)
    with pytest.raises(ConfigError, match=r"backbone ToyBackbone is not registered.*Run\(path\).load\(learner=...\)"):
        Run(tmp_path).load()
    loaded = Run(tmp_path).load(learner=toy_learner())
    assert torch.equal(loaded.weight, load_best_weights(tmp_path)["weight"])
    with pytest.raises(CheckpointError, match=r"learner.num_classes is 8 there and 9 here"):
        Run(tmp_path).load(learner=toy_learner(9))
    (tmp_path / "checkpoints" / "best.pt").unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Run(tmp_path).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: {name: [", r"config\.yaml is damaged \(while parsing"),
        (b"data: \xff", r"config\.yaml is damaged \(.*utf-8"),
        (b"", "is incomplete: it lacks data, backbone, learner, training; put the file back"),
        (b"just words", "is incomplete: it lacks data, backbone, learner, training; put the file back"),
        (b"{data: {}, backbone: {}, learner: {name: mtl}}", "is incomplete: it lacks training, data.name; put"),
    ],
)
def test_a_damaged_configuration_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    toy_train(run=tmp_path, max_epochs=1)
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        Run(tmp_path).load()


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
