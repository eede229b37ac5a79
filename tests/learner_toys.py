"""Every learner in small, and tasks for it."""

from __future__ import annotations

import inspect
from dataclasses import replace

import torch

from kshot.backbones import Conv4
from kshot.data.augmentation import prepare_images
from kshot.data.dataset import Split
from kshot.data.episodes import Episodes
from kshot.learners import InitializationLearner, Learner, learners

CLASSES = 12


def build(name: str, **options: object) -> Learner:
    """A small learner of this name on 16x16 grey images, with the same weights every time."""
    torch.manual_seed(0)
    cls = learners[name]
    if "num_classes" in inspect.signature(cls).parameters:
        options = {"num_classes": CLASSES} | options
    if issubclass(cls, InitializationLearner):
        options = {"ways": 3} | options
    if "assignment_steps" in inspect.signature(cls).parameters:
        options = {"groups": 2, "assignment_steps": 2} | options  # every task descends twice, which takes its time
    if "modulation_start" in inspect.signature(cls).parameters:
        options = {"modulation_start": 0.1} | options  # at 0 nothing reaches the task embedding in the first step
    return cls(Conv4(8, in_channels=1, image_size=16), **options)


def with_support(episodes: Episodes, chosen: torch.Tensor) -> Episodes:
    """The same tasks with these support images, in this order."""
    return replace(episodes, support=episodes.support[:, chosen], support_labels=episodes.support_labels[:, chosen])


def normalised(episodes: Episodes, split: Split, dtype: torch.dtype = torch.float32) -> Episodes:
    """The tasks with images as a learner sees them."""
    ready = prepare_images(episodes, split.normalization)
    return ready.with_images(ready.support.to(dtype), ready.query.to(dtype))
