"""Relation networks (Sung et al. 2018): a comparison of maps that is learnt, under the squared error."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from plain import WAYS, Weights, build, channels, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.learners import RelationNet

PART, MAPS = "adaptation.compare.", (3, 2, 2)  # of the network in plain.py, at 8 x 8 pixels
CHANNELS = MAPS[0]


def relations(weights: Weights, support: Tensor, labels: Tensor, query: Tensor, running: bool = False) -> Tensor:
    """r (T, N): eq. 1 of all pairs of a task, which BatchNorm normalises together in training."""
    classes = [sum(x for x, label in zip(support, labels) if label == way) for way in range(WAYS)]
    sizes = [int((labels == way).sum()) for way in range(WAYS)]
    maps = torch.stack(
        [torch.cat([(total / size).view(MAPS), x.view(MAPS)]) for x in query for total, size in zip(classes, sizes)]
    )
    for convolution, pooled in ((0, True), (4, False)):
        maps = F.conv2d(maps, weights[f"{PART}{convolution}.weight"], padding=1)
        norm = f"{PART}{convolution + 1}."
        mean = weights[f"{norm}running_mean"] if running else maps.mean((0, 2, 3))
        variance = weights[f"{norm}running_var"] if running else maps.var((0, 2, 3), correction=0)
        maps = (maps - channels(mean)) / channels(variance + 1e-5).sqrt()
        maps = (maps * channels(weights[f"{norm}weight"]) + channels(weights[f"{norm}bias"])).clamp(min=0)
        maps = F.max_pool2d(maps, 2) if pooled else maps
    hidden = (maps.flatten(1) @ weights[f"{PART}8.weight"].T + weights[f"{PART}8.bias"]).clamp(min=0)
    last = hidden @ weights[f"{PART}10.weight"].T + weights[f"{PART}10.bias"]
    return (1 / (1 + (-last).exp())).view(len(query), WAYS)


def squared_error(tasks: Episodes, weights: Weights, task: int) -> Tensor:
    """Eq. 2, as a mean."""
    images = features(weights, torch.cat([tasks.support[task], tasks.query[task]]))
    shots = len(tasks.support[task])
    found = relations(weights, images[:shots], tasks.support_labels[task], images[shots:])
    errors = [
        (found[place, way] - float(label == way)) ** 2
        for place, label in enumerate(tasks.query_labels[task])
        for way in range(WAYS)
    ]
    return torch.stack(errors).mean()


def build_small() -> RelationNet:
    learner = build(RelationNet, channels=CHANNELS, width=5, hidden=6)
    assert isinstance(learner, RelationNet)
    return learner


def test_training_minimises_the_squared_error_of_the_relations() -> None:
    tasks = draw_tasks()
    # whose map is one pixel after the pooling, so that the BatchNorm that follows takes a shift out again
    shift = f"{PART}1.bias"
    learner = build_small()
    check_training(learner, tasks, lambda weights, task: squared_error(tasks, weights, task), without_effect=(shift,))


def test_a_test_image_has_these_relations() -> None:
    learner, tasks = build_small().eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        close(actual, relations(weights, support, tasks.support_labels[task], query, running=True), f"task {task}")


def test_tasks_are_compared_some_at_a_time(monkeypatch) -> None:
    learner, tasks = build_small().eval(), draw_tasks()
    whole = learner.scores(tasks)
    monkeypatch.setattr("kshot.learners.relation_net._CHUNK_BYTES", 1)
    torch.testing.assert_close(learner.scores(tasks), whole)
