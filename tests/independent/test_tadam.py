"""TADAM (Oreshkin, Rodriguez and Lacoste 2018): a task's mean feature scales and shifts the network's maps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from plain import CLASSES, WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.learners import TADAM
from kshot.learners.tadam import CotrainingEpisodes

FURTHER = 5  # images for co-training, of each task


def embedded(weights: Weights, name: str, values: Tensor) -> Tensor:
    """Three layers of the task embedding network, two of them with shortcuts (section 2.3)."""
    first, second, third = (
        (weights[f"task_embedding.{name}.{layer}.weight"], weights[f"task_embedding.{name}.{layer}.bias"])
        for layer in ("first", "second", "third")
    )
    hidden = F.elu(first[0] @ values + first[1])
    hidden = F.elu(second[0] @ hidden + second[1] + hidden)
    return third[0] @ hidden + third[1] + hidden


def prototypes(maps: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([maps[labels == way].mean(0) for way in range(WAYS)])


def film(weights: Weights, tasks: Episodes, task: int, running: bool) -> list[tuple[Tensor, Tensor]]:
    """Scale 1 + gamma_0 g(c) and shift beta_0 h(c) of each layer, c the mean of the prototypes (section 2.2)."""
    plain = features(weights, tasks.support[task], running=running)
    mean = prototypes(plain, tasks.support_labels[task]).mean(0)
    factors = weights["task_embedding.factors"]
    return [
        (
            1 + factors[layer, 0] * embedded(weights, f"scales.{layer}", mean),
            factors[layer, 1] * embedded(weights, f"shifts.{layer}", mean),
        )
        for layer in range(2)
    ]


def logits(weights: Weights, tasks: Episodes, task: int, running: bool = False) -> Tensor:
    """-alpha |f(x) - c_k|^2 of one task's query images, all under the task's modulation."""
    modulation = film(weights, tasks, task, running)
    queries = tasks.query_labels.shape[1]
    images = torch.cat([tasks.support[task], tasks.query[task, :queries]])
    maps = features(weights, images, film=modulation, running=running)
    support, query = maps[:-queries], maps[-queries:]
    centres = prototypes(support, tasks.support_labels[task])
    squared = torch.stack([((query - centre) ** 2).sum(1) for centre in centres], 1)
    return -weights["metric.scale"] * squared


def cotraining_tasks() -> CotrainingEpisodes:
    """Tasks with further images of the split, the first and the last of which count for co-training."""
    tasks, generator = draw_tasks(), torch.Generator().manual_seed(5)
    further = torch.randn(tasks.tasks, FURTHER, 1, 8, 8, generator=generator, dtype=torch.float64)
    return CotrainingEpisodes(
        support=tasks.support,
        support_labels=tasks.support_labels,
        query=torch.cat([tasks.query, further], 1),
        query_labels=tasks.query_labels,
        classes=tasks.classes,
        keys=tasks.keys,
        image_classes=torch.randint(CLASSES, (tasks.tasks, FURTHER), generator=generator),
        drawn=np.array([True, False, True]),
    )


def test_training_minimises_query_loss_cotraining_and_penalty() -> None:
    learner = build(TADAM, num_classes=CLASSES, scale=0.7, modulation_start=0.4, modulation_penalty=0.3)
    tasks = cotraining_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        value = F.cross_entropy(logits(weights, tasks, task), tasks.query_labels[task])
        if not tasks.drawn[task]:
            return value
        further = features(weights, tasks.query[task, -FURTHER:])
        of_all = further @ weights["classifier.weight"].T + weights["classifier.bias"]
        return value + F.cross_entropy(of_all, tasks.image_classes[task])

    def penalty(weights: Weights) -> Tensor:
        return 0.3 / 2 * (weights["task_embedding.factors"] ** 2).sum()

    check_training(learner, tasks, objective, penalty=penalty)


def test_a_test_task_is_modulated_too() -> None:
    learner, tasks = build(TADAM, num_classes=CLASSES, modulation_start=0.4).eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        close(actual.log_softmax(1), logits(weights, tasks, task, running=True).log_softmax(1), f"task {task}")
