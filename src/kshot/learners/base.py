"""What every learner is: a module with a loss on a batch of tasks, and scores for the query images of each task.

The training loop calls `accumulate_gradients` and nothing else, so it never knows which algorithm it runs. The
evaluation calls `scores`, or, for a `FeatureLearner`, `features` once per image and the learner's adaptation on top.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.registry import Backbone, require_backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.dataset import Split
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

    A constructor takes the backbone, and everything else by keyword: its signature is the configuration. What sets a
    learner apart from others is said by the attributes below, on the class, or on the instance if an option decides;
    `kshot.testing.check_learner` holds every learner to what they say.

    A statistic over the training split, such as a mean feature, is a buffer of the learner itself that starts as NaN
    and is computed by `observe_training_split`.

    Attributes
    ----------
    meta_batch
        Tasks per step, unless training is told otherwise.
    precision
        What the backbone computes in; heads and losses stay in float32.
    statistics_offered
        Where BatchNorm statistics may come from at evaluation, the default first: "running", "transductive" (the whole
        query set) or "inductive" (the support set plus one query image at a time).
    statistics_at_test
        The one of them that `scores` uses.
    needs_queries
        Whether training looks at query images.
    tells_support_from_query
        Whether training fits to support images what it asks query images; False if it treats all images alike.
    can_compile
        Whether torch.compile may have the backbone: not if the task modulates its layers (FiLM), nor if gradients of
        its gradients are needed.
    follows_label_permutations
        Whether scores are the same for every numbering of a task's classes.
    ignores_support_order
        Whether scores are the same for every order of a task's support images.
    learns_all_parameters
        Whether every step moves every parameter; False if a task may leave some of them without a gradient.
    parameters_without_effect
        Names of parameters on which the objective does not depend, so that their gradient is zero.
    magnifies_rounding
        Whether the update magnifies what rounding leaves of a gradient that is zero, as inner steps of Adam do.
    groups
        How many groups the learner sorts tasks into, as `assigned` says; 1 for a learner without groups.
    """

    meta_batch: ClassVar[int] = 6
    precision: Literal["float32", "bf16"] = "float32"
    statistics_offered: ClassVar[tuple[Statistics, ...]] = ("running",)
    statistics_at_test: Statistics = "running"
    needs_queries: bool = True
    tells_support_from_query: bool = True
    can_compile: bool = True
    follows_label_permutations: ClassVar[bool] = True
    ignores_support_order: bool = True
    learns_all_parameters: bool = True
    parameters_without_effect: ClassVar[tuple[str, ...]] = ()
    magnifies_rounding: bool = False
    groups: int = 1
    options: Mapping[str, object]

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the images that the training loss looks at, and their labels (B, T).

        A learner with a `loss` of its own may give images that this loss leaves out the label `NO_LABEL`.

        Parameters
        ----------
        episodes
            A batch of B tasks, their images as a learner sees them: normalised, and augmented in training.
        """
        raise NotImplementedError

    def scores(self, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images, learnt from the support images alone; higher is more likely.

        Parameters
        ----------
        episodes
            A batch of B tasks, their images normalised.
        """
        raise NotImplementedError

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean over tasks of `task_losses`.

        Parameters
        ----------
        scores
            Scores (B, T, N).
        labels
            Classes (B, T), or real-valued labels (B, T, N) of regression.
        """
        return task_losses(scores, labels).mean()

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """What training minimises and the accuracy of its images, averaged over the tasks `episodes`: two scalars."""
        scores, labels = self.training_scores(episodes)
        return self.loss(scores, labels), accuracy(scores.detach(), labels)

    def meta_loss(self, episodes: Episodes) -> Tensor:
        """The training objective, averaged over the tasks `episodes`: a scalar."""
        return self.objective(episodes)[0]

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradient of the objective of `episodes` to ``.grad``; returns the scalars "loss" and "accuracy"."""
        loss, correct = self.objective(episodes)
        loss.backward()
        return {"loss": loss.detach(), "accuracy": correct}

    def observe_training_split(self, split: Split) -> None:
        """Compute what the learner keeps of the training split as a whole; by default, nothing.

        Training calls it after each epoch, before validation and before the best weights are saved, in evaluation mode
        and without recording gradients (`kshot.learners.training_split.observe`).

        Parameters
        ----------
        split
            The classes that the learner is trained on, with all their images.
        """

    def assigned(self, episodes: Episodes) -> Tensor:
        """The group (B,) of each of `episodes`, int64 in 0..groups-1; see `groups`."""
        return torch.zeros_like(episodes.classes[:, 0])

    def in_precision(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `network` gives for the images, computed in the learner's `precision`, as float32 or wider.

        Parameters
        ----------
        network
            Images to outputs, in any dtype.
        images
            Images (M, C, H, W), or those of several tasks (B, M, C, H, W), as the network takes them.
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = network(images)
        return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs

    @property
    def bound_ways(self) -> int | None:
        """The one number of classes that the learner can learn, or None for any."""
        return None

    def check_ways(self, ways: int) -> None:
        """ConfigError if the learner cannot learn tasks of so many `ways`; most learn any but those of regression."""
        if ways < 2:
            raise ConfigError(
                f"{type(self).__name__} tells classes apart, and tasks of one way are regression or nothing; choose a "
                f"learner that adapts weights, such as maml, or more ways"
            )

    def sampler(self, split: AnySplit, shape: TaskShape, *, seed: int, within_domain: bool | None = None) -> Sampler:
        """What training draws its tasks from.

        Parameters
        ----------
        split
            The classes to train on.
        shape
            Ways, shots and queries of the tasks.
        seed
            Seed of the tasks.
        within_domain
            As for `EpisodeSampler`: whether all classes of a task come from one domain; None for the dataset's own way.
        """
        return task_sampler(split, shape, seed=seed, within_domain=within_domain)

    def tasks_per_epoch(self, split: AnySplit) -> int:
        """How many tasks make an epoch of training on `split` (W21: 1600)."""
        return 1600

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.parameters())
        lines = [_call(self), f"parameters: {size:,}"]
        backbone = getattr(self, "backbone", None)
        if backbone is not None:
            lines.insert(1, f"backbone: {backbone.constructor_call()}, {backbone.feature_size:,} features per image")
        return "\n  ".join(lines)


class FeatureLearner(Learner):
    """A learner whose backbone is frozen while a task is learnt: a solver fits a head on features.

    Parameters
    ----------
    backbone
        Images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    adaptation
        How a head is learnt from support features; evaluation may put another in its place.
    normalize_over
        What BatchNorm takes its statistics over in training: the images of each "task", or of the whole "batch" of
        tasks.
    """

    def __init__(
        self, backbone: Backbone, *, adaptation: Adaptation, normalize_over: Literal["task", "batch"] = "task"
    ) -> None:
        super().__init__()
        check_choice("normalize_over", normalize_over, ("task", "batch"))
        self.backbone = backbone
        self.adaptation = adaptation
        self.normalize_over = normalize_over

    def features(self, images: Tensor) -> Tensor:
        """Features (M, D), float32 or wider, of images (M, C, H, W)."""
        return self.in_precision(self.backbone, images)

    def training_pass(self, episodes: Episodes) -> AbstractContextManager[None]:
        """Within this context the images of `episodes` go through the backbone as in training; see `normalize_over`."""
        return batch_of_tasks(episodes.tasks, episodes.keys, joint=self.normalize_over == "batch")

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
    """The share of images with a label whose highest score is that of this label; NaN for real-valued labels."""
    if labels.is_floating_point():
        return scores.new_tensor(float("nan"))
    return (scores.argmax(-1) == labels).sum() / (labels != NO_LABEL).sum()


def _call(part: Any) -> str:
    """`MAML(ways=5, first_order=True)`: a learner or backbone with the options that are not the defaults."""
    defaults = inspect.signature(type(part)).parameters
    options = getattr(part, "options", {})
    shown = [
        f"{name}={value!r}"
        for name, value in options.items()
        if not isinstance(value, nn.Module) and name in defaults and (name == "ways" or value != defaults[name].default)
    ]
    return f"{type(part).__name__}({', '.join(shown)})"
