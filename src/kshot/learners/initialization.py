"""Learners that adapt a copy of their weights to every task, by gradient steps from a learnt initialisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kshot.backbones.dropout import advance_ramps
from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.backbones.task_weights import forward_per_task, shared_weights
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_not_negative, check_positive
from kshot.learners.base import Learner, accuracy, task_losses
from kshot.learners.task_chunks import chunk_size, in_chunks, may_use_threads
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.descent import Weights
from kshot.solvers.heads import check_labels

Result = TypeVar("Result")
Gradients = dict[nn.Parameter, Tensor]

_IMAGES_AT_ONCE = 1024  # when query images are judged one by one, each together with the support set


class Classifier(nn.Module):
    """A backbone with a linear head: images (M, C, H, W) -> scores (M, N)."""

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.feature_size, outputs)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the images."""
        return self.head(self.backbone(images))


class InitializationLearner(Learner):
    """A learner that gives every task its own copy of the weights; the copies of B tasks are stacked, (B, ...).

    ::

        for each task i of the batch:                                (a chunk of tasks at once: learners/task_chunks.py)
            phi_i = adapted(S_i): steps from theta on the support set
            loss_i = cross-entropy of f(X; phi_i) on the query set Q_i
        gradient = mean over i of the gradient of loss_i in theta

    An algorithm says in `adapted` how the weights of a task come about, in `task_objective` what training minimises if
    it is not the query images' loss, and in `gradients` what the update is if it is not the gradient of that loss.
    BatchNorm always takes the statistics of the images at hand, as in the releases of these algorithms. The rows of the
    head belong to label numbers: unlike other learners', the scores do not follow a permutation of the labels.

    Parameters
    ----------
    backbone
        Images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    ways
        N, the rows of the head; tasks of another number of classes are refused.
    inner_steps
        Steps per task in training.
    test_inner_steps
        Steps per task in evaluation.
    tasks_at_once
        Tasks whose weights are held at the same time, which bounds the memory. None for the fastest: one on each thread
        of a CPU for images, otherwise all of a batch. It changes rounding only; a network that drops values takes one
        task after the other in training, and so does one with layers that torch.func.vmap does not know, such as LSTMs.

    Attributes
    ----------
    usual_tasks_at_once
        What an algorithm puts in place of one task per thread; None for that.
    """

    meta_batch = 4
    statistics_offered = ("transductive", "inductive")
    statistics_at_test = "transductive"
    follows_label_permutations = False
    usual_tasks_at_once: ClassVar[int | None] = None

    def __init__(
        self, backbone: Backbone, *, ways: int, inner_steps: int, test_inner_steps: int, tasks_at_once: int | None
    ) -> None:
        super().__init__()
        check_positive(ways=ways)
        check_not_negative(inner_steps=inner_steps)
        check_not_negative(test_inner_steps=test_inner_steps)
        if tasks_at_once is not None:
            check_positive(tasks_at_once=tasks_at_once)
        self.network = Classifier(backbone, ways)
        self.ways, self.inner_steps, self.test_inner_steps = ways, inner_steps, test_inner_steps
        self.tasks_at_once = tasks_at_once

    # what an algorithm is made of

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """All weights of the network after `steps` on the support set of each task, (B, ...) for each name.

        Parameters
        ----------
        episodes
            A batch of tasks whose weights are held at the same time.
        steps
            Steps per task.
        """
        raise NotImplementedError

    def task_objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """As `objective`, of `episodes` whose weights are held at the same time: here, the query images' loss."""
        return self.query_objective(self.adapted(episodes, self.inner_steps), episodes)

    def gradients(self, episodes: Episodes) -> tuple[Tensor, Gradients]:
        """Mean objective and accuracy, (2,), of `episodes` whose weights are held at one time, and the mean gradient.

        The gradient is that of the query images' loss. A learner that overrides `task_objective` overrides this, too.
        """
        weights = self.adapted(episodes, self.inner_steps)
        return self.gradients_of(*self.query_objective(weights, episodes))

    def gradients_of(self, loss: Tensor, correct: Tensor) -> tuple[Tensor, Gradients]:
        """`loss` and accuracy `correct`, (2,), and the gradient of the loss for each parameter that learns from it."""
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        known = {parameter: gradient for parameter, gradient in zip(learning, gradients) if gradient is not None}
        return torch.stack([loss.detach(), correct]), known

    # what it is made from

    @property
    def backbone(self) -> Backbone:
        """The backbone within the network."""
        return self.network.backbone

    def initial(self, tasks: int) -> Weights:
        """The initialisation, the same for each of B `tasks`, (B, ...) for each name."""
        return shared_weights(self.network, tasks)

    def outputs(self, weights: Weights, images: Tensor, *, parts: int = 1) -> Tensor:
        """Scores (B, M, N) of images (B, M, ...), task by task with its weights; `parts` as in `forward_per_task`.

        Parameters
        ----------
        weights
            All weights of each task by name, (B, ...) each.
        images
            Images (B, M, C, H, W), or inputs (B, M, d).
        parts
            As for `forward_per_task`: parts of a task's images that are normalised apart.
        """
        return self.in_precision(lambda images: forward_per_task(self.network, weights, images, parts=parts), images)

    def support_losses(self, episodes: Episodes, weights: Weights) -> Tensor:
        """The mean loss (B,) of the support images of `episodes` under each task's `weights`."""
        return task_losses(self.outputs(weights, episodes.support), episodes.support_labels)

    def query_objective(self, weights: Weights, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The mean loss of the query images of `episodes` under the tasks' `weights`, and their accuracy."""
        scores = self.outputs(weights, episodes.query)
        return self.loss(scores, episodes.query_labels), accuracy(scores.detach(), episodes.query_labels)

    def mean_gradients(self, gradients: Weights) -> Gradients:
        """The mean over tasks of the gradients (B, ...) of the network's parameters by name."""
        return {parameter: gradients[name].mean(0) for name, parameter in self.network.named_parameters()}

    # what training and evaluation call

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """What training minimises and the accuracy of its images, averaged over a batch of tasks: two scalars."""
        self.check_tasks(episodes)
        with self._in_chunks(lambda part: torch.stack(self.task_objective(part)), episodes) as parts:
            loss, correct = torch.stack([share * measured for share, measured in parts]).sum(0)
        return loss, correct

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradient of the objective to ``.grad``, chunk by chunk; returns "loss" and "accuracy", detached."""
        self.check_tasks(episodes)
        advance_ramps(self, episodes.tasks)
        measured = []
        with self._in_chunks(self.gradients, episodes) as parts:
            for share, (loss_and_accuracy, gradients) in parts:
                measured.append(share * loss_and_accuracy)
                for parameter, gradient in gradients.items():
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    parameter.grad.add_(gradient, alpha=share)
        loss, correct = torch.stack(measured).sum(0)
        return {"loss": loss, "accuracy": correct}

    def scores(self, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images, learnt from the support images alone; see `statistics_at_test`."""
        self.check_tasks(episodes)
        with torch.inference_mode(False):  # in which no step could be taken
            return torch.cat(self.by_chunk(self._scores, _recordable(episodes)))

    def _scores(self, episodes: Episodes) -> Tensor:
        with torch.enable_grad():
            weights = self.adapted(episodes, self.test_inner_steps)
        return self.scores_under(weights, episodes)

    @torch.no_grad()
    def scores_under(self, weights: Weights, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images of `episodes` under the tasks' `weights`; see `statistics_at_test`."""
        weights = {name: weight.detach() for name, weight in weights.items()}
        return self._query_scores(lambda images, parts: self.outputs(weights, images, parts=parts), episodes)

    @torch.no_grad()
    def scores_of_head(self, adaptation: HeadAdaptation, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images of `episodes` by a head of `adaptation`, not by the learner's own steps.

        The body is that of the initialisation, before any task: the head is fitted to unit features of the support set,
        as MTL's is (W21 section 5; for ANIL's body, eqs. 8-9), and the inner loop has no part in it. Statistics are
        those of `scores`.
        """

        def unit(images: Tensor, parts: int = 1) -> Tensor:
            return F.normalize(self.features(images, parts), dim=-1)

        self.check_tasks(episodes)
        head = adaptation.head(unit(episodes.support), episodes.support_labels, episodes.ways)
        return self._query_scores(lambda images, parts: head.scores(unit(images, parts)), episodes)

    def features(self, images: Tensor, parts: int = 1) -> Tensor:
        """Features (B, M, D) of images (B, M, ...), normalised within each of the `parts` of each task.

        No running statistics are kept in training, so that an image has no feature apart from the images next to it.
        """
        with batch_of_tasks(len(images) * parts, own_statistics=True):
            return self.in_precision(self.backbone, images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def _query_scores(self, outputs: Callable[[Tensor, int], Tensor], episodes: Episodes) -> Tensor:
        """Scores of the query images by ``outputs(images, parts)``; see `statistics_at_test`."""
        if self.statistics_at_test == "transductive":
            return outputs(episodes.query, 1)
        return self._one_by_one(outputs, episodes)

    def _one_by_one(self, outputs: Callable[[Tensor, int], Tensor], episodes: Episodes) -> Tensor:
        """Scores of the query images, each normalised by the statistics of the support set and of itself alone."""
        support, query = episodes.support, episodes.query
        size = support.shape[1] + 1
        pieces = []
        for some in query.split(max(1, _IMAGES_AT_ONCE // (size * episodes.tasks)), dim=1):
            supports = support[:, None].expand(-1, some.shape[1], *support.shape[1:])
            images = torch.cat([supports, some[:, :, None]], 2).flatten(1, 2)
            scores = outputs(images, some.shape[1])
            pieces.append(scores.unflatten(1, (-1, size))[:, :, -1])
        return torch.cat(pieces, 1)

    def by_chunk(self, function: Callable[[Episodes], Result], episodes: Episodes) -> list[Result]:
        """The results of `function` on the chunks of the batch `episodes`; see `in_chunks`."""
        with self._in_chunks(function, episodes) as parts:
            return [result for _, result in parts]

    def _in_chunks(
        self, function: Callable[[Episodes], Result], episodes: Episodes
    ) -> AbstractContextManager[Iterator[tuple[float, Result]]]:
        size = chunk_size(self, episodes, tasks_at_once=self.tasks_at_once, usual=self.usual_tasks_at_once)
        on_threads = size == 1 and self.tasks_at_once is None and may_use_threads(self, self.backbone, episodes)
        return in_chunks(function, episodes, size, on_threads=on_threads)

    @property
    def bound_ways(self) -> int | None:
        """N, the rows of the head."""
        return self.ways

    def check_ways(self, ways: int) -> None:
        """ConfigError if the head has not as many rows as tasks have classes."""
        if ways != self.ways:
            raise ConfigError(
                f"{type(self).__name__} was built for {self.ways}-way tasks and cannot learn {ways}-way ones; "
                f"evaluate with ways={self.ways}, or train another learner with ways={ways}"
            )

    def check_tasks(self, episodes: Episodes) -> None:
        """As `check_ways`; DataError if a support set of `episodes` lacks a class or has one that is out of range."""
        self.check_ways(episodes.ways)
        if not episodes.support_labels.is_floating_point():
            check_labels(episodes.support_labels, episodes.ways)


def as_vectors(weights: Iterable[Tensor]) -> Tensor:
    """Weights (B, ...) of B tasks, in their order, as one vector per task, (B, P)."""
    return torch.cat([weight.flatten(1) for weight in weights], 1)


def as_weights(vectors: Tensor, like: Weights) -> Weights:
    """Vectors (B, P) as weights of the names and shapes of `like`."""
    parts = vectors.split([weight[0].numel() for weight in like.values()], 1)
    return {name: part.view_as(weight) for (name, weight), part in zip(like.items(), parts)}


def _recordable(episodes: Episodes) -> Episodes:
    """The tasks, copied if they come from inference mode, whose tensors autograd refuses."""
    names = ("support", "support_labels", "query", "query_labels") if episodes.support.is_inference() else ()
    return replace(episodes, **{name: getattr(episodes, name).clone() for name in names})


def batch_norm_weights(network: nn.Module) -> set[str]:
    """The names of the scales and shifts of BatchNorm."""
    return {
        f"{place}.{name}"
        for place, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
