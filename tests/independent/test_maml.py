"""MAML (Finn, Abbeel and Levine 2017): the query loss after gradient steps, differentiated through these steps."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from plain import Weights, build, check_scores, check_training, draw_tasks, loss, part, query_loss, scores_after
from torch import Tensor

from kshot.learners import MAML

RATE = 0.3


def adapted(weights: Weights, images: Tensor, labels: Tensor, steps: int) -> Weights:
    """phi = phi - rate * grad L(phi; S), some times from theta on (eq. 1); theta stays in the graph."""
    phi = part(weights, "network.")
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=True)
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return phi


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_minimises_the_query_loss_after_the_steps(steps: int, at_once: int) -> None:
    learner, tasks = build(MAML, ways=3, inner_rate=RATE, inner_steps=steps, tasks_at_once=at_once), draw_tasks()
    check_training(learner, tasks, query_loss(tasks, partial(adapted, steps=steps)))


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_is_learnt_by_its_own_number_of_steps(at_once: int) -> None:
    options = {"inner_rate": RATE, "inner_steps": 1, "test_inner_steps": 4, "tasks_at_once": at_once}
    learner, tasks = build(MAML, ways=3, **options), draw_tasks()
    check_scores(learner, tasks, scores_after(learner, tasks, partial(adapted, steps=4)))
