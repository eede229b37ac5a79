"""What every learner is: a module with a loss on a batch of tasks, and scores for the query images of a task.

The training loop calls `accumulate_gradients` and nothing else, so it never knows which algorithm it runs; the
evaluation calls `scores`, or, for a `FeatureLearner`, `features` once an image and the learner's adaptation on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.registry import Backbone, require_backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.episodes import Episodes, Sampler, TaskShape
from kshot.data.tasks import AnySplit, task_sampler
from kshot.errors import ConfigError, check_choice
from kshot.measures import Statistics
from kshot.registry import Registry
from kshot.solvers.adaptation import Adaptation

NO_LABEL = -100  # in place of the label of an image that takes no part in a loss

learners: Registry[Learner] = Registry("learner", check=require_backbone)


class Learner(nn.Module):
    """A few-shot learner (W21 eqs. 10-13); `kshot.learners.learners` maps names to classes.

    meta_batch, tasks_per_epoch: what training uses unless it is told otherwise.
    precision: what the backbone computes in; heads and losses stay in float32.
    statistics_offered: where BatchNorm statistics may come from at evaluation, the usual one first: "running",
        "transductive" (the whole query set) or "inductive" (the support set plus one query image at a time).
    statistics_at_test: the one of them that `scores` uses.
    needs_queries: whether training looks at query images.
    can_compile: whether torch.compile may have the backbone; not where the task modulates its layers (FiLM), nor where
        gradients of its gradients are needed.
    follows_label_permutations: whether scores are the same for every numbering of a task's classes.
    ignores_support_order: whether scores are the same for every order of a task's support images.
    """

    meta_batch: ClassVar[int] = 6
    precision: Literal["float32", "bf16"] = "float32"
    statistics_offered: ClassVar[tuple[Statistics, ...]] = ("running",)
    statistics_at_test: Statistics = "running"
    needs_queries: ClassVar[bool] = True
    can_compile: bool = True
    follows_label_permutations: ClassVar[bool] = True
    ignores_support_order: bool = True
    options: Mapping[str, object]

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the images that the training loss looks at, and their labels (B, T).

        A learner with a `loss` of its own may say `NO_LABEL` of images that this loss leaves out.
        """
        raise NotImplementedError

    def scores(self, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images, learnt from the support images alone; higher is more likely."""
        raise NotImplementedError

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean over tasks of `task_losses`."""
        return task_losses(scores, labels).mean()

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """What training minimises and the accuracy of its images, averaged over a batch of tasks: two scalars."""
        scores, labels = self.training_scores(episodes)
        return self.loss(scores, labels), accuracy(scores.detach(), labels)

    def meta_loss(self, episodes: Episodes) -> Tensor:
        """The training objective on a batch of tasks, averaged over tasks: a scalar."""
        return self.objective(episodes)[0]

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradient of the objective to ``.grad``; returns the scalars "loss" and "accuracy", detached."""
        loss, correct = self.objective(episodes)
        loss.backward()
        return {"loss": loss.detach(), "accuracy": correct}

    def in_precision(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `network` gives for the images, computed in the learner's `precision`, as float32 or wider."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = network(images)
        return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs

    @property
    def bound_ways(self) -> int | None:
        """The one number of classes that the learner can learn, or None for any."""
        return None

    def check_ways(self, ways: int) -> None:
        """ConfigError where the learner cannot learn tasks of so many classes; most can learn any but regression."""
        if ways < 2:
            raise ConfigError(
                f"{type(self).__name__} tells classes apart, and tasks of one way are regression or nothing; choose a "
                f"learner that adapts weights, such as maml, or more ways"
            )

    def sampler(self, split: AnySplit, shape: TaskShape, seed: int, within_domain: bool | None = None) -> Sampler:
        """What training draws its tasks from; within_domain as for `EpisodeSampler`."""
        return task_sampler(split, shape, seed=seed, within_domain=within_domain)

    def tasks_per_epoch(self, split: AnySplit) -> int:
        """How many tasks make an epoch of training on `split` (W21: 1600)."""
        return 1600


class FeatureLearner(Learner):
    """A learner whose backbone is frozen while a task is learnt: a solver fits a head on features.

    adaptation: how a head is learnt from support features; evaluation may put another in its place.
    statistics: BatchNorm statistics in training: of each "task" alone, or "joint" over the whole meta batch.
    """

    def __init__(
        self, backbone: Backbone, adaptation: Adaptation, statistics: Literal["task", "joint"] = "task"
    ) -> None:
        super().__init__()
        check_choice("statistics", statistics, ("task", "joint"))
        self.backbone = backbone
        self.adaptation = adaptation
        self.statistics = statistics

    def features(self, images: Tensor) -> Tensor:
        """Features (M, D), float32 or wider, of images (M, C, H, W)."""
        return self.in_precision(self.backbone, images)

    def training_pass(self, episodes: Episodes) -> AbstractContextManager[None]:
        """Within this context the images of all tasks go through the backbone as in training; see `statistics`."""
        return batch_of_tasks(episodes.tasks, episodes.keys, joint=self.statistics == "joint")

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the query images by the learner's own adaptation, and their labels (B, T)."""
        with self.training_pass(episodes):
            return self.scores(episodes), episodes.query_labels

    def scores(self, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images by the learner's own adaptation."""
        return self.adaptation.scores(self, episodes)


def task_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean loss (B,) of each task's images.

    Cross-entropy of scores (B, T, N) against class labels (B, T), or the squared error against real-valued labels
    (B, T, N), averaged over T and N.
    """
    if labels.is_floating_point():
        return (scores - labels).square().mean((1, 2))
    return F.cross_entropy(scores.mT, labels, reduction="none").mean(1)


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """The share of images with a label whose highest score is that of this label; nan for real-valued labels."""
    if labels.is_floating_point():
        return scores.new_tensor(float("nan"))
    return (scores.argmax(-1) == labels).sum() / (labels != NO_LABEL).sum()
