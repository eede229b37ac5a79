"""A learner under test in small, and the tasks of a made-up dataset that it meets."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kshot.backbones import Conv4
from kshot.data.augmentation import prepare_images
from kshot.data.dataset import Normalization, Split
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.learners.base import Learner
from kshot.learners.training_split import observe

WAYS, CLASSES, SIDE = 3, 12, 16
STEPS, _RATE = 10, 3e-3  # of Adam, on one batch: enough for classes that are far apart


class Subject:
    """A class of learners under test, with the tasks that it meets.

    Parameters
    ----------
    cls, accuracy, options
        As for `check_learner`.
    """

    def __init__(self, cls: type[Learner], accuracy: float, options: dict[str, Any]) -> None:
        self.cls, self.accuracy = cls, accuracy
        self.parameters = set(inspect.signature(cls).parameters)
        given = {"num_classes": CLASSES, "ways": WAYS}
        self.options = {name: value for name, value in given.items() if name in self.parameters} | options
        self.train_split, self.test_split = made_up_split("train", CLASSES, seed=0), made_up_split("test", 6, seed=2)

    def build(self, **options: Any) -> Learner:
        """A learner on 16x16 grey images, with the same weights every time, and its training split observed."""
        learner = self.build_unobserved(**options)
        observe(learner, self.train_split)
        return learner

    def build_unobserved(self, **options: Any) -> Learner:
        """As `build`, before it has seen its training split."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return self.cls(Conv4(8, in_channels=1, image_size=SIDE), **self.options | options)

    def training_tasks(self, count: int = 3, dtype: torch.dtype = torch.float32, *, queries: int = 4) -> Episodes:
        """Tasks, or images for learners of images, as training draws them: three ways, two shots."""
        sampler = self.build_unobserved().sampler(self.train_split, TaskShape(WAYS, 2, queries), seed=0)
        return prepared(sampler.episodes(np.arange(count)), self.train_split, dtype=dtype)

    def unseen_tasks(self, dtype: torch.dtype = torch.float32, ways: int = WAYS) -> Episodes:
        """Six tasks of classes that training does not see, with three shots and five queries."""
        sampler = EpisodeSampler(self.test_split, TaskShape(ways, 3, 5), seed=0)
        return prepared(sampler.episodes(np.arange(6)), self.test_split, dtype=dtype)

    @cached_property
    def trained(self) -> Learner:
        """The learner after a few steps on one batch, with all tasks at once if it takes several."""
        learner = self.build(**{"tasks_at_once": 1000} if "tasks_at_once" in self.parameters else {})
        batch = self.training_tasks(4 * learner.meta_batch)
        optimizer = torch.optim.Adam(learner.parameters(), _RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            learner.accumulate_gradients(batch)
            optimizer.step()
        observe(learner, self.train_split)
        return learner


def made_up_split(name: str, classes: int, seed: int) -> Split:
    """A split of grey images whose classes are far apart: each is one coarse random pattern plus a little noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.choice([40, 215], (classes, 4, 4, 1)).repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
    counts = np.full(classes, 24)
    images = patterns.repeat(counts, 0) + generator.normal(0, 12, (int(counts.sum()), SIDE, SIDE, 1))
    return Split(
        name=name,
        dataset="made-up",
        images=images.clip(0, 255).astype(np.uint8),
        counts=counts,
        class_names=tuple(f"{name}-class-{index}" for index in range(classes)),
        domains=("all",) * classes,
        normalization=Normalization((0.5,), (0.25,), "none"),
    )


def prepared(episodes: Episodes, split: Split, *, dtype: torch.dtype = torch.float32) -> Episodes:
    """The tasks with images as a learner sees them."""
    ready = prepare_images(episodes, split.normalization)
    return ready.with_images(ready.support.to(dtype), ready.query.to(dtype))


def with_support(episodes: Episodes, chosen: torch.Tensor) -> Episodes:
    """The same tasks with these support images, in this order."""
    return replace(episodes, support=episodes.support[:, chosen], support_labels=episodes.support_labels[:, chosen])
