"""Meta-SGD (Li, Zhou, Chen and Li 2017): MAML with a learnt rate for every single weight."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from plain import Weights, build, check_scores, check_training, draw_tasks, loss, part, query_loss, scores_after
from torch import Tensor

from kshot.learners import MAML


def adapted(weights: Weights, images: Tensor, labels: Tensor, steps: int) -> Weights:
    """theta' = theta - alpha o grad L(theta; S), alpha of theta's shape (eq. 2); alpha stays in the graph, too."""
    phi, rates = part(weights, "network."), list(part(weights, "rates.").values())
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=True)
        moves = zip(phi.items(), rates, gradients, strict=True)
        phi = {name: weight - rate * gradient for (name, weight), rate, gradient in moves}
    return phi


@pytest.mark.parametrize("at_once", [1, 2])
def test_training_minimises_the_query_loss_over_weights_and_rates(at_once: int) -> None:
    options = {"learn_rates": True, "inner_rate": 0.3, "inner_steps": 3, "tasks_at_once": at_once}
    learner, tasks = build(MAML, ways=3, **options), draw_tasks()
    check_training(learner, tasks, query_loss(tasks, partial(adapted, steps=3)))


def test_a_test_task_is_learnt_with_the_learnt_rates() -> None:
    learner, tasks = build(MAML, ways=3, learn_rates=True, inner_rate=0.3, test_inner_steps=4), draw_tasks()
    check_scores(learner, tasks, scores_after(learner, tasks, partial(adapted, steps=4)))
