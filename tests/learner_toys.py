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

# options under which a learner computes something else than by default
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "maml-first-order": ("maml", {"first_order": True}),
    "matching-net-full-context": ("matching-net", {"full_context": True}),
    # under a strong penalty, a class of more images has higher scores for that alone
    "metaoptnet-ridge": ("metaoptnet", {"head": "ridge", "l2": 1.0}),
    "r2d2-all-shots": ("r2d2", {"random_shots": False}),
}


def kind_of(name: str) -> type[Learner]:
    """The class of a learner or variant."""
    return learners[VARIANTS[name][0] if name in VARIANTS else name]


def build(name: str, **options: object) -> Learner:
    """A small learner or variant of this name on 16x16 grey images, with the same weights every time."""
    torch.manual_seed(0)
    cls = kind_of(name)
    if name in VARIANTS:
        options = VARIANTS[name][1] | options
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
