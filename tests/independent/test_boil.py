"""BOIL (Oh, Yoo, Kim and Yun 2021): MAML whose inner loop moves the body and leaves the head alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from plain import Weights, build, check_scores, check_training, draw_tasks, loss, part, query_loss, scores_after
from torch import Tensor

from kshot.learners import MAML

RATE = 0.3


def adapted(theta: Weights, images: Tensor, labels: Tensor, steps: int) -> Weights:
    """The body after gradient steps, and the head as it is."""
    body, head = part(theta, "network.backbone."), part(theta, "network.head.")
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(body | head, images, labels), list(body.values()), create_graph=True)
        body = {name: weight - RATE * gradient for (name, weight), gradient in zip(body.items(), gradients)}
    return body | head


@pytest.mark.parametrize("at_once", [1, 2])
def test_training_minimises_the_query_loss_of_the_moved_body(at_once: int) -> None:
    options = {"layers": "body", "inner_rate": RATE, "inner_steps": 3, "tasks_at_once": at_once}
    learner, tasks = build(MAML, ways=3, **options), draw_tasks()
    check_training(learner, tasks, query_loss(tasks, partial(adapted, steps=3)))


def test_a_test_task_moves_the_body_alone() -> None:
    learner, tasks = build(MAML, ways=3, layers="body", inner_rate=RATE, test_inner_steps=4), draw_tasks()
    check_scores(learner, tasks, scores_after(learner, tasks, partial(adapted, steps=4)))
