"""Supervised pretraining (Tian et al. 2020): one classifier of all training classes, on single images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from linear import logistic_regression
from plain import CLASSES, WAYS, build, check_step, close, draw_tasks, features, weights_of

from kshot.data.episodes import Episodes
from kshot.learners import Supervised


def draw_images(count: int = 8) -> Episodes:
    """Images one by one, as tasks of one support image among all classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 1, 1, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (count, 1), generator=generator)
    classes = torch.arange(CLASSES).expand(count, -1)
    return Episodes(images, labels, images[:, :0], labels[:, :0], classes, np.arange(count, dtype=np.uint64))


def test_training_minimises_the_cross_entropy_over_all_classes_of_one_batch() -> None:
    learner, batch = build(Supervised, num_classes=CLASSES), draw_images()
    weights = weights_of(learner)
    maps = features(weights, batch.support[:, 0])  # statistics of the whole batch
    logits = maps @ weights["classifier.weight"].T + weights["classifier.bias"]
    expected = F.cross_entropy(logits, batch.support_labels[:, 0])
    learnt = {name: weights[name] for name, _ in learner.named_parameters()}
    check_step(learner, batch, expected, dict(zip(learnt, torch.autograd.grad(expected, list(learnt.values())))))


def test_a_test_task_is_learnt_by_logistic_regression_with_c_1_on_unit_features() -> None:
    learner, tasks = build(Supervised, num_classes=CLASSES).eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        support, query = support / support.norm(dim=1, keepdim=True), query / query.norm(dim=1, keepdim=True)
        weight, bias = logistic_regression(support, tasks.support_labels[task], WAYS, c=1.0)
        close(actual.softmax(1), (query @ weight.T + bias).softmax(1), f"task {task}", rtol=1e-5)
