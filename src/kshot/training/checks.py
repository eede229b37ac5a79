"""Whether learner, data and options go together; asked before training starts to work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from kshot.data.tasks import AnyDataset, AnySplit
from kshot.errors import ConfigError
from kshot.evaluation.fit import check_images
from kshot.learners.base import Learner


def check_kinds(learner: object, data: object) -> None:
    """ConfigError if the learner or the data is only a name, or something else that cannot be trained or drawn from."""
    if not isinstance(learner, Learner):
        raise ConfigError(f"a learner is trained, not {learner!r}; make one by kshot.create_learner('protonet', data)")
    if not isinstance(data, get_args(AnyDataset)):
        raise ConfigError(f"a learner is trained on a dataset, not {data!r}; get one by kshot.load('glyphs')")


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
    check_images(learner, split)  # what a network was built for need not be among its options
