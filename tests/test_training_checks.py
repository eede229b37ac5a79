"""What training refuses before it starts."""

from __future__ import annotations

import functools
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import make_split
from torch import nn
from training_toys import (
    at_step,
    toy_data_16,
    toy_dataset,
    toy_learner,
    toy_train,
)

import kshot
from kshot.backbones import Backbone, Conv4, backbones
from kshot.data.dataset import Dataset
from kshot.errors import ConfigError, DataError
from kshot.evaluation.protocol import evaluate
from kshot.learners import MAML, TADAM, MultiTask, Reptile, learners
from kshot.learners.create import FROM_DATA
from kshot.runs.measurement import Measurement
from kshot.training import TrainingOptions, train
from kshot.training.checks import check_compile


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 9}, "toy/train has 8 classes, too few for 9 ways"),
        (
            {"validation_ways": 5},
            "toy/val has 4 classes, too few for 5 ways; choose fewer ways. The options of .* validation_ways",
        ),
        (
            {"validation_queries": 15},
            r"class 'val-class-0' has 10 images, but 2 shots \+ 15 queries need 17.* \(10\)\. The options .*_queries",
        ),
        ({"shots": 6, "queries": 6}, "toy/train: class 'train-class-0' has 10 images"),
        ({"meta_batch": 0}, "meta_batch is 0, but must be at least 1"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"validation_ways": 0}, "validation_ways is 0, but must be at least 1"),
        ({"validation_shots": 0}, "validation_shots is 0, but must be at least 1"),
        ({"optimizer": "sgd", "momentum": -1.0}, "momentum is -1.0, but must be at least 0"),
        ({"optimizer": "sgd", "momentum": 1.0}, "momentum is 1.0, but must be below 1"),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, "nesterov looks ahead along the momentum"),
        ({"clip_gradient_value": 0.0}, "clip_gradient_value is 0.0, but must be above 0"),
        ({"clip_gradient_value": float("nan")}, "clip_gradient_value is nan"),
        ({"clip_gradient_norm": 0.0}, "clip_gradient_norm is 0.0, but must be above 0"),
        ({"factor": 1.5}, "factor is 1.5, but the plateau schedule lowers the rate"),
        ({"factor": 0.0}, "factor is 0.0, but must be above 0"),
        ({"device": "gpu"}, "no device 'gpu'; choose auto, cpu"),
        ({"optimizer": "adagrad"}, "no optimizer 'adagrad'; choose one of: radam"),
        ({"optimizer": "adam", "nesterov": True}, "momentum and nesterov belong to sgd"),
        ({"schedule": "triangular"}, "no schedule 'triangular'"),
        ({"schedule": "step"}, "step needs one of them"),
        ({"schedule": "step", "milestones": [3], "step_every": 2}, "step needs one of them"),
        ({"schedule": "step", "step_every": 0}, "step_every is 0"),
        ({"milestones": [3]}, "schedule is 'plateau' and milestones are"),
        ({"schedule": "step", "milestones": [1, 2], "factor": [0.5]}, "1 factors were given for 2 milestones"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"train_on": "train+val"}, r"holds nothing out.*patience=0"),
        ({"train_on": "test+val"}, "no split 'test\\+val'"),
        ({"shots": "five"}, "shots is 'five', but must be a whole number"),
        ({"shots": None}, "shots is None, but must be a whole number"),
        ({"max_epochs": 2.5}, "max_epochs is 2.5, but must be a whole number or None"),
        ({"seed": "a"}, "seed is 'a', but must be a whole number"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3', but must be a number"),
        ({"factor": "half"}, "factor is 'half', but must be a number or a list"),
        ({"progress": "maybe"}, "progress is 'maybe', but must be True or False"),
        ({"resume": True}, "nothing to resume without a run folder"),
        ({"loggers": ["tensorboard"]}, "loggers write into the run folder"),
    ],
)
def test_bad_options_are_refused_before_work(options: dict[str, Any], message: str) -> None:
    learner = at_step(toy_learner(), 1, lambda: pytest.fail("work had started"))
    with pytest.raises((ConfigError, DataError), match=message):
        toy_train(learner, **options)


def test_what_is_no_learner_or_no_dataset_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trained, not 3; make one by kshot\.create_learner"):
        train(3, toy_dataset())  # type: ignore[arg-type]
    for data in (3, toy_dataset().train):
        with pytest.raises(ConfigError, match=r"(?s)trained on a dataset, not .*; get one by kshot.load"):
            train(toy_learner(), data)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="3 is not a learner"):
        evaluate(3, toy_dataset().test)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shots is 'one', but must be a whole number"):
        evaluate(toy_learner(), toy_dataset().test, ways=3, shots="one")  # type: ignore[arg-type]


def test_a_learner_of_query_images_is_refused_without_any() -> None:
    learner = MAML(Conv4(2, in_channels=1, image_size=16), ways=4)
    with pytest.raises(ConfigError, match="queries is 0, but MAML is trained by the loss of query images"):
        toy_train(learner, toy_data_16(), ways=4, queries=0)
    assert not any(kind.needs_queries for kind in (MultiTask, Reptile))


def test_compiling_what_it_would_break_is_refused(tmp_path: Path) -> None:
    for learner in (
        TADAM(Conv4(2, in_channels=1, image_size=16), num_classes=12),
        MAML(Conv4(2, in_channels=1, image_size=16), ways=4),
    ):
        with pytest.raises(ConfigError, match=f"of which {type(learner).__name__} needs one; leave out compile"):
            toy_train(learner, toy_data_16(), ways=4, compile=True, run=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    for options in ({"first_order": True}, {"layers": "head"}):
        check_compile(MAML(Conv4(2, in_channels=1, image_size=16), ways=4, **options))


def test_a_learner_for_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mtl was built with num_classes=7, but toy/train has num_classes=8"):
        toy_train(toy_learner(7))
    with pytest.raises(ConfigError, match=r"conv4 was built with in_channels=3, but toy/train has in_channels=1"):
        toy_train(MultiTask(Conv4(2, in_channels=3, image_size=16), num_classes=12), toy_data_16())
    with pytest.raises(ConfigError, match=r"built for 2 features per image and gives 8 for .*8 x 8; .*image_size=8"):
        toy_train(MultiTask(flat_backbone(1, 2), num_classes=8))
    with pytest.raises(ConfigError, match=r"OwnNetwork cannot take .* 1 x 8 x 8: .*in_channels=1 and image_size=8"):
        toy_train(MultiTask(flat_backbone(3, 2), num_classes=8))
    split = make_split([10] * 8, size=32)
    data = Dataset("toy", train=split, val=split, test=split, train_val=split)
    with pytest.raises(ConfigError, match=r"Conv4 was built for 2 features per image and gives 8 for the images"):
        toy_train(MultiTask(Conv4(2, in_channels=1), num_classes=8), data)


class OwnNetwork(Backbone, nn.Sequential):
    """A backbone by hand."""


def flat_backbone(channels: int, feature_size: int) -> Any:
    """Somebody's own network, which has no option that says what images it takes."""
    network = OwnNetwork(nn.Conv2d(channels, 2, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network.feature_size = feature_size
    return network


def test_names_and_classes_are_not_taken_for_what_they_name() -> None:
    data = toy_data_16()
    learner = kshot.create_learner("protonet", data)
    with pytest.raises(ConfigError, match=r"a learner is trained, not 'protonet'; make one by kshot.create_learner"):
        kshot.train("protonet", data)
    with pytest.raises(ConfigError, match=r"a learner is trained on a dataset, not 'glyphs'; get one by kshot.load"):
        kshot.train(learner, "glyphs")
    with pytest.raises(ConfigError, match=r"backbone is the class Conv4; .* kshot.backbone\(Conv4\(...\), in_channels"):
        kshot.create_learner("protonet", data, backbone=Conv4)


def test_leaving_small_classes_out_is_no_advice_if_all_are_small() -> None:
    with pytest.raises(DataError) as refused:
        toy_train(shots=60)
    assert "need" in str(refused.value)
    assert "leave small" not in str(refused.value)


def options_of(constructor: type) -> list[str]:
    return sorted(set(inspect.signature(constructor).parameters) - FROM_DATA)


def misspelt(option: str) -> str:
    return option + option[-1]


def create(name: str, options: dict[str, Any]) -> None:
    kshot.create_learner(name, toy_data_16(), **options)


def create_in(name: str, options: dict[str, Any]) -> None:
    kshot.create_learner("protonet", toy_data_16(), backbone=name, backbone_options=options)


PLACES = {
    **{f"learner {name}": (options_of(cls), functools.partial(create, name)) for name, cls in learners.items()},
    **{f"backbone {name}": (options_of(cls), functools.partial(create_in, name)) for name, cls in backbones.items()},
    "training": ([field.name for field in fields(TrainingOptions)], TrainingOptions.of),
    "evaluation": ([field.name for field in fields(Measurement)], Measurement.of),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_misspelt_option_is_answered_with_the_right_one(place: str) -> None:
    known, give = PLACES[place]
    for option in known:
        with pytest.raises(ConfigError, match=rf"no option '{misspelt(option)}' \(did you mean '"):
            give({misspelt(option): 3})


def test_an_option_of_the_backbone_is_not_one_of_the_learner() -> None:
    for option in ("widht", "width"):
        with pytest.raises(
            ConfigError, match=f"no option '{option}', but conv4 has, in backbone_options .*mean 'width'"
        ):
            kshot.create_learner("protonet", toy_data_16(), **{option: 3})
