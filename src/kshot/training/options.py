"""What `train` refuses before it starts to work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kshot.data.tasks import AnySplit
from kshot.errors import ConfigError
from kshot.evaluation.features import device_of, evaluating
from kshot.learners.base import FeatureLearner, Learner
from kshot.training.loggers import check_loggers

_AT_LEAST = {
    "meta_batch": 1,
    "tasks_per_epoch": 1,
    "max_epochs": 1,
    "validation_tasks": 2,  # an interval needs two
    "validation_ways": 1,
    "validation_shots": 1,
    "validation_queries": 1,
    "patience": 0,
    "plateau_patience": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "momentum": 0,
    "time_limit": 0,
}


def check_options(options: Mapping[str, Any]) -> None:
    """ConfigError where an option of `train` is out of range, unknown, or contradicts another."""
    for name, least in _AT_LEAST.items():
        if options[name] is not None and not options[name] >= least:  # nor is nan
            raise ConfigError(f"{name} is {options[name]}, but must be at least {least}")
    if options["momentum"] >= 1:
        raise ConfigError(f"momentum is {options['momentum']}, but must be below 1")
    for name in ("clip_gradient_value", "clip_gradient_norm"):
        if options[name] is not None and not options[name] > 0:
            raise ConfigError(f"{name} is {options[name]}, but must be above 0; null clips nothing")
    if options["nesterov"] and options["momentum"] == 0:
        raise ConfigError("nesterov looks ahead along the momentum, which is 0; choose a momentum, or nesterov=false")
    _check_factor(options["factor"], options["schedule"])
    if options["precision"] not in ("float32", "bf16"):
        raise ConfigError(f"there is no precision {options['precision']!r}; choose float32 or bf16")
    if options["loggers"] and options["run"] is None:
        raise ConfigError("loggers write into the run folder; name one with run=...")
    check_loggers(options["loggers"] or [])
    if options["resume"] and options["run"] is None:
        raise ConfigError("there is nothing to resume without a run folder; name it with run=...")
    if options["train_on"] == "train+val" and (options["schedule"] == "plateau" or options["patience"] > 0):
        raise ConfigError(
            "training on train+val holds nothing out, so no validation accuracy can steer it; "
            "choose patience=0 and schedule=step, cosine, linear or constant"
        )


def _check_factor(factor: float | Sequence[float], schedule: str) -> None:
    factors = factor if isinstance(factor, Sequence) else [factor]
    if not all(0 < part < math.inf for part in factors):
        raise ConfigError(f"factor is {factor}, but must be above 0")
    if schedule == "plateau" and not all(part < 1 for part in factors):
        raise ConfigError(f"factor is {factor}, but the plateau schedule lowers the rate: it must be below 1")


def check_queries(learner: Learner, queries: int) -> None:
    """ConfigError where a learner that learns from query images would be given none."""
    if queries < 1 and learner.needs_queries:
        raise ConfigError(
            f"queries is {queries}, but {type(learner).__name__} is trained by the loss of query images; give it at "
            f"least 1"
        )


def check_compile(learner: Learner) -> None:
    """ConfigError where there is nothing that torch.compile could have, or not all that the learner needs of it."""
    name = type(learner).__name__
    if getattr(learner, "backbone", None) is None:
        raise ConfigError(f"{name} has no backbone to compile; leave out compile")
    if not learner.can_compile:
        raise ConfigError(
            f"a network that torch.compile has made has no gradients of gradients and cannot be modulated by the task, "
            f"of which {name} needs one; leave out compile"
        )


def check_fit(learner: Learner, config: Mapping[str, Any], split: AnySplit) -> None:
    """ConfigError where the learner, described by `config`, or its backbone was built for other sizes than the data."""
    channels, height, width = split.image_shape
    expected = {"in_channels": channels, "image_size": width} if height == width else {"in_channels": channels}
    for section, sizes in ((config["learner"], {"num_classes": split.num_classes}), (config["backbone"], expected)):
        for name, size in sizes.items():
            if section.get(name) not in (None, size):
                raise ConfigError(
                    f"{section['name']} was built with {name}={section[name]}, but {split.dataset}/{split.name} has "
                    f"{name}={size}; build it with {name}={size}"
                )
    if isinstance(learner, FeatureLearner):
        _check_features(learner, split)


@torch.no_grad()
def _check_features(learner: FeatureLearner, split: AnySplit) -> None:
    """Pass one black image through the backbone: what it was built for need not be among its options."""
    channels, height, width = split.image_shape
    name, promised = type(learner.backbone).__name__, learner.backbone.feature_size
    advice = f"build it for them, with in_channels={channels} and image_size={width}"
    images = f"the images of {split.dataset}/{split.name}, {channels} x {height} x {width}"
    with evaluating(learner, "float32"):
        try:
            found = learner.backbone(torch.zeros(1, channels, height, width, device=device_of(learner))).shape[1]
        except RuntimeError as error:
            raise ConfigError(f"{name} cannot take {images}: {error}; {advice}") from error
    if found != promised:
        raise ConfigError(f"{name} was built for {promised} features an image and gives {found} for {images}; {advice}")
