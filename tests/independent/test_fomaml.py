"""First-order MAML (Finn et al. 2017, section 5.2): the gradient of the query loss AT the adapted weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from plain import build, check_scores, check_step, draw_tasks, loss, part, scores_after, weights_of
from torch import Tensor

from kshot.learners import MAML

RATE = 0.3


def adapted(weights: dict[str, Tensor], images: Tensor, labels: Tensor, steps: int) -> dict[str, Tensor]:
    """Weights after gradient steps, which no graph leads back from."""
    phi = part(weights, "network.")
    for _ in range(steps):
        phi = {name: weight.detach().requires_grad_() for name, weight in phi.items()}
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()))
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return {name: weight.detach().requires_grad_() for name, weight in phi.items()}


@pytest.mark.parametrize("at_once", [1, 2])
def test_theta_moves_along_the_mean_gradient_at_the_adapted_weights(at_once: int) -> None:
    options = {"first_order": True, "inner_rate": RATE, "inner_steps": 3, "tasks_at_once": at_once}
    learner, tasks = build(MAML, ways=3, **options), draw_tasks()
    theta = part(weights_of(learner), "network.")
    losses, gradients = [], {name: torch.zeros_like(weight) for name, weight in theta.items()}
    for task in range(tasks.tasks):
        phi = adapted(theta, tasks.support[task], tasks.support_labels[task], 3)
        losses.append(loss(phi, tasks.query[task], tasks.query_labels[task]))
        for name, gradient in zip(phi, torch.autograd.grad(losses[-1], list(phi.values()))):
            gradients[name] += gradient / tasks.tasks
    check_step(learner, tasks, torch.stack(losses).mean(), gradients)


def test_a_test_task_is_learnt_as_by_maml() -> None:
    options = {"first_order": True, "inner_rate": RATE, "test_inner_steps": 4}
    learner, tasks = build(MAML, ways=3, **options), draw_tasks()
    check_scores(learner, tasks, scores_after(learner, tasks, partial(adapted, steps=4)))
