"""Learners and backbones by name: what `create_learner` of the front door and the command line share."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from kshot.backbones.registry import backbones
from kshot.data.dataset import SplitName
from kshot.data.regression import RegressionDataset
from kshot.data.tasks import AnyDataset, AnySplit
from kshot.errors import ConfigError, did_you_mean
from kshot.learners.base import Learner, learners

# what constructors take from the data and the shape of its tasks
FROM_DATA = frozenset({"backbone", "num_classes", "ways", "in_channels", "image_size"})


def create_learner(
    name: str,
    data: AnyDataset,
    *,
    backbone: str | nn.Module | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    ways: int | None = None,
    train_on: SplitName = "train",
    seed: int = 0,
    **options: Any,
) -> Learner:
    """Build a learner for the images and classes of a dataset.

    Parameters
    ----------
    name
        A name of `list_learners`.
    data
        Dataset, or family of functions, that the learner will be trained on: says how many channels, pixels and
        classes there are.
    backbone
        A name of `list_backbones`, or a network; None for "conv4", or for "mlp" if the tasks are regression.
    backbone_options
        Options of a backbone that is given by name, such as ``{"width": 64}``.
    ways
        Classes per task, for learners that are bound to a number of classes; None for the data's usual one.
    train_on
        The split whose classes the learner is trained to tell apart.
    seed
        Names the initial weights.
    **options
        Options of the learner: its constructor's arguments.

    Returns
    -------
    Learner
        On the CPU, with initial weights.

    Raises
    ------
    ConfigError
        For an unknown name or option, and for values that a constructor refuses.
    """
    split, learner_class = data.split(train_on), learners[name]
    if backbone is None:
        backbone = "mlp" if isinstance(data, RegressionDataset) else "conv4"
    _check_known(f"learner {name}", options, learner_class, backbone=backbone if isinstance(backbone, str) else None)
    if isinstance(backbone, nn.Module) and backbone_options:
        raise ConfigError("backbone_options belong to a backbone that is given by name; build the network with them")
    if isinstance(backbone, type):
        raise ConfigError(
            f"backbone is the class {backbone.__name__}; give its name in quotes if it is registered, or a network "
            f"built from it: kshot.backbone({backbone.__name__}(...), in_channels=..., image_size=...)"
        )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if not isinstance(backbone, nn.Module):
            backbone = create_backbone(backbone, split, **backbone_options or {})
        from_data = {"num_classes": split.num_classes, "ways": split.usual_ways if ways is None else ways}
        taken = inspect.signature(learner_class).parameters
        return learner_class(backbone, **{key: value for key, value in from_data.items() if key in taken}, **options)


def create_described(
    description: Mapping[str, Mapping[str, Any]], data: AnyDataset, *, ways: int | None, train_on: SplitName, seed: int
) -> Learner:
    """Build a learner as `create_learner` does, out of the sections "learner" and "backbone": names and options."""
    learner, backbone = dict(description["learner"]), dict(description["backbone"])
    name, of_backbone = learner.pop("name"), backbone.pop("name")
    shape: dict[str, Any] = {"ways": ways, "train_on": train_on, "seed": seed}
    return create_learner(name, data, backbone=of_backbone, backbone_options=backbone, **shape, **learner)


def create_backbone(name: str, split: AnySplit, **options: Any) -> nn.Module:
    """Build the backbone of this name for the images of a split; ConfigError for an unknown name or option."""
    _check_known(f"backbone {name}", options, backbones[name])
    channels, _, width = split.image_shape
    return backbones[name](in_channels=channels, image_size=width, **options)


def list_learners() -> list[str]:
    """The names that `create_learner` knows, in alphabetical order."""
    return sorted(learners)


def list_backbones() -> list[str]:
    """The names of backbones that `create_learner` knows, in alphabetical order."""
    return sorted(backbones)


def _check_known(what: str, options: Collection[str], constructor: type, *, backbone: str | None = None) -> None:
    """ConfigError for an option that the constructor lacks; a learner's may be meant for the backbone."""
    known = _options_of(constructor)
    for option in options:
        if option in FROM_DATA:
            raise ConfigError(f"{what} takes {option} from the data; leave it out")
        if option not in known:
            near = did_you_mean(option, known)
            if not near and backbone is not None:
                of_backbone = did_you_mean(option, _options_of(backbones[backbone]))
                near = f", but {backbone} has, in backbone_options{of_backbone}" if of_backbone else ""
            raise ConfigError(f"{what} has no option {option!r}{near}; its options: {', '.join(known) or 'none'}")


def _options_of(constructor: type) -> list[str]:
    return sorted(set(inspect.signature(constructor).parameters) - FROM_DATA)
