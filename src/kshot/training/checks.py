"""Whether learner, data and options go together; asked before training starts to work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from kshot.data.tasks import AnySplit
from kshot.errors import ConfigError
from kshot.evaluation.features import device_of, evaluating
from kshot.learners.base import Learner


def check_queries(learner: Learner, queries: int) -> None:
    """ConfigError if a learner that learns from query images would be given none."""
    if queries < 1 and learner.needs_queries:
        raise ConfigError(
            f"queries is {queries}, but {type(learner).__name__} is trained by the loss of query images; give it at "
            f"least 1"
        )


def check_compile(learner: Learner) -> None:
    """ConfigError if there is nothing to compile, or if compiling takes away what the learner needs."""
    name = type(learner).__name__
    if getattr(learner, "backbone", None) is None:
        raise ConfigError(f"{name} has no backbone to compile; leave out compile")
    if not learner.can_compile:
        raise ConfigError(
            f"a network that torch.compile has made has no gradients of gradients and cannot be modulated by the task, "
            f"of which {name} needs one; leave out compile"
        )


def check_fit(learner: Learner, config: Mapping[str, Any], split: AnySplit) -> None:
    """ConfigError if the learner, described by `config`, or its backbone was built for other sizes than the data."""
    channels, height, width = split.image_shape
    expected = {"in_channels": channels, "image_size": width} if height == width else {"in_channels": channels}
    for section, sizes in ((config["learner"], {"num_classes": split.num_classes}), (config["backbone"], expected)):
        for name, size in sizes.items():
            if section.get(name) not in (None, size):
                raise ConfigError(
                    f"{section['name']} was built with {name}={section[name]}, but {split.dataset}/{split.name} has "
                    f"{name}={size}; build it with {name}={size}"
                )
    if getattr(learner, "backbone", None) is not None:
        _check_features(learner, split)


@torch.no_grad()
def _check_features(learner: Learner, split: AnySplit) -> None:
    """Pass one black image through the backbone: what it was built for need not be among its options."""
    channels, height, width = split.image_shape
    backbone: Any = learner.backbone
    name, promised = type(backbone).__name__, backbone.feature_size
    advice = f"build it for them, with in_channels={channels} and image_size={width}"
    images = f"the images of {split.dataset}/{split.name}, {channels} x {height} x {width}"
    with evaluating(learner, "float32"):
        try:
            features = backbone(torch.zeros(1, channels, height, width, device=device_of(learner))).shape[1]
        except RuntimeError as error:
            raise ConfigError(f"{name} cannot take {images}: {error}; {advice}") from error
    if features != promised:
        raise ConfigError(
            f"{name} was built for {promised} features an image and gives {features} for {images}; {advice}"
        )
