"""MAML (Finn, Abbeel and Levine 2017): the query loss after gradient steps, differentiated through these steps."""

from __future__ import annotations

import pytest
import torch
from plain import Weights, build, check_scores, check_training, draw_tasks, loss, part, scores, weights_of
from torch import Tensor

from kshot.learners import MAML

RATE = 0.3


def adapted(theta: Weights, images: Tensor, labels: Tensor, steps: int) -> Weights:
    """phi = phi - rate * grad L(phi; S), some times from theta on (eq. 1); theta stays in the graph."""
    phi = theta
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=True)
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return phi


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("steps", [0, 3])
def test_training_minimises_the_query_loss_after_the_steps(steps: int, at_once: int) -> None:
    learner, tasks = build(MAML, ways=3, inner_rate=RATE, inner_steps=steps, tasks_at_once=at_once), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        phi = adapted(part(weights, "network."), tasks.support[task], tasks.support_labels[task], steps)
        return loss(phi, tasks.query[task], tasks.query_labels[task])

    check_training(learner, tasks, objective)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_is_learnt_by_its_own_number_of_steps(at_once: int) -> None:
    options = {"inner_rate": RATE, "inner_steps": 1, "test_inner_steps": 4, "tasks_at_once": at_once}
    learner, tasks = build(MAML, ways=3, **options), draw_tasks()
    theta = part(weights_of(learner), "network.")

    def outputs(task: int, images: Tensor) -> Tensor:
        return scores(adapted(theta, tasks.support[task], tasks.support_labels[task], 4), images)

    check_scores(learner, tasks, outputs)
