"""FEAT (Ye et al. 2020): class means that attend to each other, and the regulariser over the classes' own images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from plain import FEATURES, WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.learners import FEAT

PART = "adaptation.attention."
OPTIONS: dict[str, Any] = {
    "temperature": 3.0,
    "regularizer_weight": 0.7,
    "regularizer_temperature": 5.0,
    "dropout": 0.0,
}


def learner_without_dropout() -> FEAT:
    learner: Any = build(FEAT, **OPTIONS)
    learner.prototypes.attention.attention_dropout.rate = 0.0
    return learner


def adapted(weights: Weights, members: Tensor) -> Tensor:
    """A set (M, D) after attention, one member after the other (eqs. 5-7), shortcut and layer normalisation."""
    queries, keys, values = (members @ weights[f"{PART}{name}.weight"].T for name in ("query", "key", "value"))
    found = []
    for member, query in zip(members, queries):
        shares = torch.stack([query @ key / FEATURES**0.5 for key in keys]).softmax(0)
        mixed = sum(share * value for share, value in zip(shares, values))
        moved = member + weights[f"{PART}output.weight"] @ mixed + weights[f"{PART}output.bias"]
        normal = (moved - moved.mean()) / (moved.var(correction=0) + 1e-5).sqrt()
        found.append(normal * weights[f"{PART}norm.weight"] + weights[f"{PART}norm.bias"])
    return torch.stack(found)


def means(vectors: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([vectors[labels == way].mean(0) for way in range(WAYS)])


def scores(images: Tensor, centres: Tensor, temperature: float) -> Tensor:
    return torch.stack([-(images - centre).square().sum(1) / temperature for centre in centres], 1)


def objective(tasks: Episodes, weights: Weights, task: int) -> Tensor:
    images, labels = (
        torch.cat([tasks.support[task], tasks.query[task]]),
        torch.cat([tasks.support_labels[task], tasks.query_labels[task]]),
    )
    maps, shots = features(weights, images), len(tasks.support[task])
    prototypes = adapted(weights, means(maps[:shots], labels[:shots]))
    loss = F.cross_entropy(scores(maps[shots:], prototypes, 3.0), labels[shots:])
    centres = torch.stack([adapted(weights, maps[labels == way]).mean(0) for way in range(WAYS)])
    return loss + 0.7 * F.cross_entropy(scores(maps, centres, 5.0), labels)


def test_training_minimises_the_loss_of_queries_and_of_all_images_by_their_own_classes() -> None:
    tasks = draw_tasks()
    check_training(learner_without_dropout(), tasks, lambda weights, task: objective(tasks, weights, task))


def test_a_test_image_is_scored_by_its_distance_to_the_adapted_means() -> None:
    learner, tasks = learner_without_dropout().eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        prototypes = adapted(weights, means(support, tasks.support_labels[task]))
        close(actual.softmax(1), scores(query, prototypes, 3.0).softmax(1), f"task {task}")


def test_dropout_follows_the_key_of_the_task() -> None:
    learner, tasks = build(FEAT), draw_tasks()
    first = learner.meta_loss(tasks)
    assert torch.equal(first, learner.meta_loss(tasks))
    other = tasks.keys + 1
    tasks.__dict__["keys"] = other
    assert not torch.equal(first, learner.meta_loss(tasks))
