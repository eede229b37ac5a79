"""Ideas for MTL's training that kshot has no option for, as learners and schedules of `races.py`.

What a race shows to pay becomes an option of the library; the rest stays here, so that its numbers can be repeated.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import kshot
from kshot.backbones import Backbone, Conv4, backbones
from kshot.data.episodes import Episodes
from kshot.learners import MultiTask, learners
from kshot.learners.base import accuracy
from kshot.training import loop


@learners.register("mtl-smoothed")
class SmoothedMultiTask(MultiTask):
    """MTL whose labels are smoothed (Szegedy et al. 2016)."""

    def __init__(
        self, backbone: Backbone, *, num_classes: int, ways: int = 5, scale: float = 10.0, smoothing: float = 0.1
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, ways=ways, scale=scale)
        self.smoothing = smoothing

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy against labels mixed with the uniform distribution."""
        return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), label_smoothing=self.smoothing)


@learners.register("mtl-averaged")
class AveragedMultiTask(MultiTask):
    """MTL that is measured with an exponential moving average of its backbone, BatchNorm's statistics included."""

    steps: Tensor

    def __init__(
        self, backbone: Backbone, *, num_classes: int, ways: int = 5, scale: float = 10.0, decay: float = 0.99
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, ways=ways, scale=scale)
        self.averaged = copy.deepcopy(backbone).requires_grad_(False)
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Average the weights that the last update left, then go on as MTL."""
        steps = int(self.steps)
        share = max(1 - self.decay, 9 / (steps + 10))
        states = self.averaged.state_dict(), self.backbone.state_dict()
        for name, value in states[1].items():
            if value.is_floating_point():
                states[0][name].lerp_(value, share)
        self.steps += 1
        with torch.enable_grad():
            return super().accumulate_gradients(episodes)

    def features(self, images: Tensor) -> Tensor:
        """Those of the averaged backbone, of unit length."""
        return F.normalize(self.in_precision(self.averaged, images), dim=-1)


@backbones.register("conv4-small-maps")
class Conv4SmallMaps(Conv4):
    """Conv4 without its last pool if only 2x2 places are left, so that images of 20 px give as many features."""

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W)."""
        for block in self.blocks:
            layers = block if images.shape[-1] > 2 else [block[0], block[1], block[3]]
            for layer in layers:
                images = layer(images)
        return images.flatten(1)


@learners.register("mtl-progressive")
class ProgressiveMultiTask(MultiTask):
    """MTL that sees smaller images in its first steps."""

    steps: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        ways: int = 5,
        scale: float = 10.0,
        size: int = 20,
        small_steps: int = 1,
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, ways=ways, scale=scale)
        self.size, self.small_steps = size, small_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The scores of MTL, of images that are small at first."""
        if self.steps < self.small_steps:
            support, query = (self.resized(images) for images in (episodes.support, episodes.query))
            episodes = episodes.with_images(support, query)
        self.steps += 1
        return super().training_scores(episodes)

    def resized(self, images: Tensor) -> Tensor:
        """Images (B, S, C, H, W) of the smaller size."""
        flat = images.flatten(0, 1)
        small = F.interpolate(flat, size=(self.size, self.size), mode="bilinear", antialias=True)
        return small.unflatten(0, images.shape[:2])


@learners.register("mtl-rotation")
class RotationMultiTask(MultiTask):
    """MTL that also tells by how many quarter turns copies of half of the images are turned (Gidaris et al. 2019)."""

    def __init__(
        self, backbone: Backbone, *, num_classes: int, ways: int = 5, scale: float = 10.0, weight_of_turns: float = 1.0
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, ways=ways, scale=scale)
        self.turns = nn.Linear(backbone.feature_size, 4)
        self.weight_of_turns = weight_of_turns

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The objective of MTL, plus the cross-entropy of the turns; of one task."""
        images, labels = episodes.images()[0], episodes.labels()
        half = images[::2]
        turns = torch.randint(4, (len(half),))
        turned = torch.stack([torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(half, turns)])
        features = self.in_precision(self.backbone, torch.cat([images, turned]))
        features = F.normalize(features, dim=-1)
        plain, rotated = features[: len(images)], features[len(images) :]
        scores = self.scale * (plain @ self.weight[episodes.classes].mT)
        of_turns = F.cross_entropy(10 * self.turns(rotated), turns)
        return self.loss(scores, labels) + self.weight_of_turns * of_turns, accuracy(scores.detach(), labels)


@learners.register("mtl-distilled")
class DistilledMultiTask(MultiTask):
    """MTL that half follows the scores of an earlier training of the same network (RFS, Tian et al. 2020)."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        ways: int = 5,
        scale: float = 10.0,
        teacher: str = "",
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, ways=ways, scale=scale)
        self.teacher_run, self.temperature = teacher, temperature

    @cached_property
    def _teacher(self) -> list[Any]:  # in a list, which is no part of the learner's weights
        teacher = kshot.Run(Path(self.teacher_run)).load(checkpoint="last").requires_grad_(False)
        teacher.precision = self.precision
        return [teacher.to(memory_format=torch.channels_last)]

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Half the cross-entropy, half the divergence from the teacher."""
        scores, labels = self.training_scores(episodes)
        with torch.no_grad():
            target = self._teacher[0].training_scores(episodes)[0]
        soft, wanted = (F.log_softmax(part / self.temperature, -1) for part in (scores, target))
        divergence = F.kl_div(soft, wanted, log_target=True, reduction="sum") / scores[..., 0].numel()
        loss = (self.loss(scores, labels) + self.temperature**2 * divergence) / 2
        return loss, accuracy(scores.detach(), labels)


@contextlib.contextmanager
def schedule_of(rate: Callable[[float], float]) -> Iterator[None]:
    """Trainings within this context multiply their rate by rate(t) in each epoch, t in 0..1 the share of training."""

    def make(optimizer: Optimizer, options: Any) -> LambdaLR:
        return LambdaLR(optimizer, lambda epoch: rate((epoch + 0.5) / options.max_epochs))

    before = loop.make_schedule
    loop.make_schedule = make  # type: ignore[assignment]
    try:
        yield
    finally:
        loop.make_schedule = before


def one_cycle(share: float) -> Callable[[float], float]:
    """A rate that rises in a straight line for this share of training, and falls along a cosine from there."""
    return lambda t: t / share if t < share else (1 + math.cos(math.pi * (t - share) / (1 - share))) / 2
