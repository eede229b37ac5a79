"""ProtoNet (Snell, Swersky and Zemel 2017): softmax over the negative squared distances to the class means."""

from __future__ import annotations

import torch
from plain import WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.learners import ProtoNet


def probabilities(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """(T, N) from eqs. 1 and 2, one image and one class after the other."""
    prototypes = [torch.stack([image for image, label in zip(support, labels) if label == k]).mean(0) for k in range(3)]
    kernels = torch.stack([torch.stack([(-((image - c) ** 2).sum()).exp() for c in prototypes]) for image in query])
    return kernels / kernels.sum(1, keepdim=True)


def test_training_minimises_the_negative_logarithm_of_the_probability() -> None:
    learner, tasks = build(ProtoNet), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        maps = features(weights, torch.cat([tasks.support[task], tasks.query[task]]))
        support, query = maps[: tasks.support.shape[1]], maps[tasks.support.shape[1] :]
        found = probabilities(support, tasks.support_labels[task], query)
        return -torch.stack([found[place, label] for place, label in enumerate(tasks.query_labels[task])]).log().mean()

    check_training(learner, tasks, objective)


def test_a_test_image_gets_these_probabilities() -> None:
    learner, tasks = build(ProtoNet).eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        assert actual.shape == (len(query), WAYS)
        close(actual.softmax(1), probabilities(support, tasks.support_labels[task], query), f"task {task}")
