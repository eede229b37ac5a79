"""Learners that adapt a copy of their weights to every task, by gradient steps from a learnt initialisation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from kshot.backbones.dropout import advance_ramps, drops_values
from kshot.backbones.registry import Backbone, is_compiled
from kshot.backbones.task_threads import map_on_threads
from kshot.backbones.task_weights import forward_per_task, shared_weights
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, DivergenceError, check_not_negative, check_positive
from kshot.learners.base import Learner, accuracy, task_losses
from kshot.solvers.descent import Weights
from kshot.solvers.heads import check_labels

Result = TypeVar("Result")
Gradients = dict[nn.Parameter, Tensor]

_IMAGES_AT_ONCE = 1024  # where query images are judged one by one, each beside the support set


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
    """A learner whose every task adapts its own copy of the weights (W21 eqs. 1-2); the copies of B tasks are stacked.

    An algorithm says in `adapted` how the weights of a task come about, in `objective_at_once` what training minimises,
    where that is not the query images' loss, and in `gradients` what the update is, where that is no gradient of it.
    BatchNorm always takes the statistics of the images at hand, as in the releases of these algorithms. The rows of the
    head belong to label numbers: unlike other learners', the scores do not follow a permutation of the labels.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    ways: N, the rows of the head; tasks of another number of classes are refused.
    inner_steps, test_inner_steps: gradient steps a task in training and in evaluation.
    tasks_at_once: tasks whose weights are held at the same time, which bounds the memory; None for one on each
        thread of a CPU, where that is fastest for images, else all of a batch. It changes rounding only; a network that
        drops values takes one task after the other in training.
    """

    meta_batch = 4
    statistics_offered = ("transductive", "inductive")
    statistics_at_test = "transductive"
    follows_label_permutations = False

    def __init__(
        self, backbone: Backbone, ways: int, inner_steps: int, test_inner_steps: int, tasks_at_once: int | None
    ) -> None:
        super().__init__()
        check_not_negative(inner_steps=inner_steps)
        check_not_negative(test_inner_steps=test_inner_steps)
        if tasks_at_once is not None:
            check_positive(tasks_at_once=tasks_at_once)
        self.network = Classifier(backbone, ways)
        self.ways, self.inner_steps, self.test_inner_steps = ways, inner_steps, test_inner_steps
        self.tasks_at_once = tasks_at_once

    @property
    def backbone(self) -> Backbone:
        """The backbone within the network."""
        return self.network.backbone

    def adapted(self, episodes: Episodes, steps: int) -> Weights:
        """All weights of the network after `steps` on the support set of each task, (B, ...) for each name."""
        raise NotImplementedError

    def initial(self, tasks: int) -> Weights:
        """The initialisation, the same for each of B tasks, (B, ...) for each name."""
        return shared_weights(self.network, tasks)

    def outputs(self, weights: Weights, images: Tensor, groups: int = 1) -> Tensor:
        """Scores (B, M, N) of images (B, M, ...), task by task with its weights; `groups` as in `forward_per_task`."""
        return self.in_precision(lambda images: forward_per_task(self.network, weights, images, groups=groups), images)

    def support_losses(self, episodes: Episodes, weights: Weights) -> Tensor:
        """The mean loss (B,) of each task's support images under its weights."""
        return task_losses(self.outputs(weights, episodes.support), episodes.support_labels)

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """What training minimises and the accuracy of its images, averaged over a batch of tasks: two scalars."""
        self.check_tasks(episodes)

        def of_chunk(part: Episodes) -> Tensor:
            return part.tasks / episodes.tasks * torch.stack(self.objective_at_once(part))

        loss, correct = torch.stack(self.by_chunk(of_chunk, episodes)).sum(0)
        return loss, correct

    def objective_at_once(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """As `objective`, of tasks whose weights are held at the same time: here, the loss of the query images."""
        return self.query_objective(self.adapted(episodes, self.inner_steps), episodes)

    def query_objective(self, weights: Weights, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The mean loss of the query images under the tasks' weights, and their accuracy."""
        scores = self.outputs(weights, episodes.query)
        return self.loss(scores, episodes.query_labels), accuracy(scores.detach(), episodes.query_labels)

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradient of the objective to ``.grad``, chunk by chunk; returns "loss" and "accuracy", detached."""
        self.check_tasks(episodes)
        advance_ramps(self, episodes.tasks)
        measured = []
        parts = self._each_chunk(lambda part: (part.tasks / episodes.tasks, *self.gradients(part)), episodes)
        with closing(parts):
            for share, loss_and_accuracy, gradients in parts:  # in the order of the tasks, for the same sums every time
                measured.append(share * loss_and_accuracy)
                for parameter, gradient in gradients.items():
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    parameter.grad.add_(gradient, alpha=share)
        loss, correct = torch.stack(measured).sum(0)
        return {"loss": loss, "accuracy": correct}

    def gradients(self, episodes: Episodes) -> tuple[Tensor, Gradients]:
        """Mean objective and accuracy of tasks whose weights are held at the same time, (2,), and the mean gradient.

        The gradient is that of `objective_at_once`, for each parameter that learns from these tasks.
        """
        loss, correct = self.objective_at_once(episodes)
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        known = {parameter: gradient for parameter, gradient in zip(learning, gradients) if gradient is not None}
        return torch.stack([loss.detach(), correct]), known

    def mean_gradients(self, gradients: Weights) -> Gradients:
        """The mean over tasks of the gradients (B, ...) of the network's parameters by name."""
        return {parameter: gradients[name].mean(0) for name, parameter in self.network.named_parameters()}

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
        """Scores (B, T, N) of the query images under the tasks' weights; see `statistics_at_test`."""
        weights = {name: weight.detach() for name, weight in weights.items()}
        if self.statistics_at_test == "transductive":
            return self.outputs(weights, episodes.query)
        return self._one_by_one(weights, episodes)

    def _one_by_one(self, weights: Weights, episodes: Episodes) -> Tensor:
        """Scores of the query images, each normalised by the statistics of the support set and of itself alone."""
        support, query = episodes.support, episodes.query
        size = support.shape[1] + 1
        pieces = []
        for some in query.split(max(1, _IMAGES_AT_ONCE // (size * episodes.tasks)), dim=1):
            beside = support[:, None].expand(-1, some.shape[1], *support.shape[1:])
            images = torch.cat([beside, some[:, :, None]], 2).flatten(1, 2)
            scores = self.outputs(weights, images, groups=some.shape[1])
            pieces.append(scores.unflatten(1, (-1, size))[:, :, -1])
        return torch.cat(pieces, 1)

    @property
    def bound_ways(self) -> int:
        """N, the rows of the head."""
        return self.ways

    def check_ways(self, ways: int) -> None:
        """ConfigError where the head has not as many rows as tasks have classes."""
        if ways != self.ways:
            raise ConfigError(
                f"{type(self).__name__} was built for {self.ways}-way tasks and cannot learn {ways}-way ones; "
                f"evaluate with ways={self.ways}, or train another learner with ways={ways}"
            )

    def check_tasks(self, episodes: Episodes) -> None:
        """As `check_ways`, and DataError where the support set of a task lacks a class or names one out of range."""
        self.check_ways(episodes.ways)
        if not episodes.support_labels.is_floating_point():
            check_labels(episodes.support_labels, episodes.ways)

    def by_chunk(self, function: Callable[[Episodes], Result], episodes: Episodes) -> list[Result]:
        """The results of `function` on the tasks, as many at once as may be; a DivergenceError names the task."""
        return list(self._each_chunk(function, episodes))

    def _each_chunk(self, function: Callable[[Episodes], Result], episodes: Episodes) -> Generator[Result, None, None]:
        dropping = drops_values(self)  # masks are drawn a pass, which several tasks would share
        size = 1 if dropping else self.tasks_at_once or self.chunk_size(episodes)

        def of_chunk(start: int) -> Result:
            try:
                return function(episodes.part(start, start + size))
            except DivergenceError as error:
                if error.task is not None:
                    error.task += start
                raise

        # where one task after the other is nobody's wish, and threads would not draw from a common generator
        aside = size == 1 and self.tasks_at_once is None and not dropping and episodes.support.device.type == "cpu"
        aside = aside and self.backbone.threads_at_once and not is_compiled(self)
        starts = range(0, episodes.tasks, size)
        yield from map_on_threads(of_chunk, starts) if aside else map(of_chunk, starts)

    def chunk_size(self, episodes: Episodes) -> int:
        """How many tasks to hold at once where nobody has said: one of images on a CPU, else all.

        A CPU gains nothing from several convolutions at once, but much from several of the small layers of regression.
        """
        of_images = not episodes.support_labels.is_floating_point()
        return 1 if of_images and episodes.support.device.type == "cpu" else episodes.tasks


def as_vectors(weights: Iterable[Tensor]) -> Tensor:
    """Weights (B, ...) of B tasks, in their order, as one vector a task, (B, P)."""
    return torch.cat([weight.flatten(1) for weight in weights], 1)


def as_weights(vectors: Tensor, like: Weights) -> Weights:
    """Vectors (B, P) as weights of the names and shapes of `like`."""
    parts = vectors.split([weight[0].numel() for weight in like.values()], 1)
    return {name: part.view_as(weight) for (name, weight), part in zip(like.items(), parts)}


def _recordable(episodes: Episodes) -> Episodes:
    """The tasks, copied where they come from inference mode, whose tensors autograd refuses."""
    names = ("support", "support_labels", "query", "query_labels") if episodes.support.is_inference() else ()
    return replace(episodes, **{name: getattr(episodes, name).clone() for name in names})
