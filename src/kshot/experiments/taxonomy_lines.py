"""The lines of W21's Tables 1 and 2: each learner's objective, and the same by the one formula.

For a new learner, write one more function with `@line`: it builds the learner, and says which f, loss and R its
objective consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kshot.backbones.conv4 import Conv4
from kshot.data.episodes import Episodes
from kshot.learners import ANIL, MAML, R2D2, MetaOptNet, MultiTask, ProtoNet
from kshot.solvers import logistic_regression, ridge
from kshot.theory import last_layer as formula

CLASSES = 20  # that tasks are drawn from


@dataclass(frozen=True)
class Comparison:
    """An objective by a learner and by the formula.

    Attributes
    ----------
    by_learner, by_formula
        The two values, scalars.
    parameters
        What both are differentiated in.
    """

    by_learner: Tensor
    by_formula: Tensor
    parameters: Sequence[nn.Parameter]


@dataclass(frozen=True)
class Line:
    """A line of the tables.

    Attributes
    ----------
    learner
        Its name.
    scores, loss, regularizer
        f, loss and R in words.
    compare
        Builds the learner on a batch of tasks and a backbone, and computes its objective in both ways.
    """

    learner: str
    scores: str
    loss: str
    regularizer: str
    compare: Callable[[Episodes, Conv4], Comparison]


LINES: list[Line] = []


def line(
    learner: str, *, scores: str, loss: str, regularizer: str
) -> Callable[[Callable[[Episodes, Conv4], Comparison]], Callable[[Episodes, Conv4], Comparison]]:
    """Decorator that adds a comparison, on tasks of images in float64 and a backbone in training mode, to `LINES`."""

    def add(compare: Callable[[Episodes, Conv4], Comparison]) -> Callable[[Episodes, Conv4], Comparison]:
        LINES.append(Line(learner, scores, loss, regularizer, compare))
        return compare

    return add


@line("MultiTask", scores="w.x", loss="mean cross-entropy, all images", regularizer="none, heads are trained jointly")
def _multi_task(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = MultiTask(backbone, num_classes=CLASSES, ways=episodes.ways).double()
    features, labels = F.normalize(_features(backbone, episodes.images()), dim=-1), episodes.labels()
    tasks = replace(episodes, support=features, support_labels=labels, query=features, query_labels=labels)
    loss = formula.mean_cross_entropy
    value = formula.objective(
        tasks,
        learner.weight[episodes.classes],
        scores=formula.linear,
        loss=loss,
        regularizer=formula.Joint(),
        outer_loss=loss,
    )
    return Comparison(learner.meta_loss(episodes), value, list(learner.parameters()))


@line("ANIL", scores="w.x + b", loss="mean cross-entropy", regularizer="5 gradient steps")
def _anil(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = ANIL(backbone, ways=episodes.ways, inner_rate=0.1, inner_steps=5).double()
    return _early_stopping(learner, episodes)


@line("MAML, head alone", scores="w.x + b", loss="mean cross-entropy", regularizer="5 gradient steps")
def _maml(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = MAML(backbone, ways=episodes.ways, inner_rate=0.1, inner_steps=5, layers="head").double()
    return _early_stopping(learner, episodes)


@line("ProtoNet", scores="-|x - w|^2", loss="summed -f of own class", regularizer="none")
def _protonet(episodes: Episodes, backbone: Conv4) -> Comparison:
    tasks, start = feature_tasks(episodes, backbone)
    value = formula.objective(
        tasks,
        start,
        scores=formula.negative_squared_distance,
        loss=formula.own_score,
        regularizer=formula.Penalty(formula.no_penalty),
        outer_loss=formula.mean_cross_entropy,
    )
    return Comparison(ProtoNet(backbone).meta_loss(episodes), value, list(backbone.parameters()))


@line("ridge head", scores="w.x", loss="summed squared error", regularizer="0.5 |w|^2")
def _ridge(episodes: Episodes, backbone: Conv4) -> Comparison:
    tasks, start = feature_tasks(episodes, backbone)
    head = ridge(tasks.support, tasks.support_labels, tasks.ways, l2=0.5)
    by_solver = formula.mean_cross_entropy(head.scores(tasks.query), tasks.query_labels).mean()
    return Comparison(by_solver, _ridge_objective(tasks, start, 0.5), list(backbone.parameters()))


@line("MetaOptNet, ridge", scores="w.x", loss="summed squared error", regularizer="50 |w|^2")
def _metaoptnet(episodes: Episodes, backbone: Conv4) -> Comparison:
    return _ridge_learner(MetaOptNet(backbone, head="ridge", l2=50.0), 50.0, episodes, backbone)


@line("R2D2", scores="w.x", loss="summed squared error", regularizer="|w|^2 for each support image, its weight learnt")
def _r2d2(episodes: Episodes, backbone: Conv4) -> Comparison:
    learner = R2D2(backbone, l2=1.0, scale=1.0, random_shots=False)
    return _ridge_learner(learner, 1.0 * episodes.support.shape[1], episodes, backbone)


@line("logistic head, C = 3", scores="w.x + b", loss="summed cross-entropy", regularizer="|w|^2 / 6")
def _logistic(episodes: Episodes, backbone: Conv4) -> Comparison:
    tasks, weight = feature_tasks(episodes, backbone)
    # the solver passes no gradient on: its objective is a number, not a function of the backbone
    fixed = tasks.with_images(tasks.support.detach(), tasks.query.detach())
    head = logistic_regression(fixed.support, fixed.support_labels, fixed.ways, c=3.0, tol=1e-12)
    by_solver = formula.mean_cross_entropy(head.scores(fixed.query), fixed.query_labels).mean()
    value = formula.objective(
        tasks,
        F.pad(weight, (0, 1)),
        scores=formula.affine,
        loss=formula.summed_cross_entropy,
        regularizer=formula.Penalty(formula.l2_but_for_bias(1 / 6)),
        outer_loss=formula.mean_cross_entropy,
    )
    return Comparison(by_solver, value, list(backbone.parameters()))


def _ridge_learner(learner: MetaOptNet | R2D2, l2: float, episodes: Episodes, backbone: Conv4) -> Comparison:
    """Both learners scale the scores by a learnt number, which is 1 here."""
    value = _ridge_objective(*feature_tasks(episodes, backbone), l2)
    return Comparison(learner.double().meta_loss(episodes), value, list(backbone.parameters()))


def _ridge_objective(tasks: Episodes, start: Tensor, l2: float) -> Tensor:
    """w.x with the squared error and R = l2 |w|^2 in the inner problem."""
    return formula.objective(
        tasks,
        start,
        scores=formula.linear,
        loss=formula.squared_error,
        regularizer=formula.Penalty(formula.l2(l2)),
        outer_loss=formula.mean_cross_entropy,
    )


def _early_stopping(learner: ANIL | MAML, episodes: Episodes) -> Comparison:
    """Both learners adapt a head from a common start; support and query images are normalised apart."""
    tasks = episodes.with_images(*(_features(learner.backbone, part) for part in (episodes.support, episodes.query)))
    head = learner.network.head
    start = torch.cat([head.weight, head.bias.unsqueeze(1)], 1).expand(episodes.tasks, -1, -1)
    steps = formula.EarlyStopping(learner.inner_steps, learner.inner_rate)
    loss = formula.mean_cross_entropy
    value = formula.objective(tasks, start, scores=formula.affine, loss=loss, regularizer=steps, outer_loss=loss)
    return Comparison(learner.meta_loss(episodes), value, list(learner.parameters()))


def feature_tasks(episodes: Episodes, backbone: nn.Module) -> tuple[Episodes, Tensor]:
    """The tasks with features, support and query images normalised together, and heads (B, N, D) of zeros."""
    features = _features(backbone, episodes.images())
    boundary = episodes.support.shape[1]
    tasks = episodes.with_images(features[:, :boundary], features[:, boundary:])
    return tasks, features.new_zeros(episodes.tasks, episodes.ways, features.shape[2])


def _features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features (B, M, D) of images (B, M, ...), one task after the other: BatchNorm sees each task on its own."""

    def features(task: Tensor) -> Tensor:
        # running statistics are a copy: what BatchNorm changes in place cannot be differentiated afterwards
        return functional_call(backbone, {name: buffer.clone() for name, buffer in backbone.named_buffers()}, (task,))

    return torch.stack([features(task) for task in images])
