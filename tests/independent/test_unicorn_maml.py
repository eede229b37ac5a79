"""UnicornMAML (Ye and Chao 2022): MAML from a head whose rows are copies of one vector."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from plain import (
    build,
    check_scores,
    check_training,
    close,
    draw_tasks,
    loss,
    part,
    query_loss,
    scores,
    scores_after,
    weights_of,
)
from torch import Tensor

from kshot.learners import UnicornMAML

RATE = 0.3
HEAD = ("network.head.weight", "network.head.bias")


def adapted(weights: dict[str, Tensor], images: Tensor, labels: Tensor, steps: int, ways: int = 3) -> dict[str, Tensor]:
    """Gradient steps from `ways` copies of the one row, through which gradients flow."""
    phi = part(weights, "network.")
    phi = phi | {name: torch.cat([weights[name]] * ways) for name in HEAD}
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=True)
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return phi


@pytest.mark.parametrize("at_once", [1, 2])
def test_training_minimises_the_query_loss_over_body_and_the_one_row(at_once: int) -> None:
    learner = build(UnicornMAML, inner_rate=RATE, inner_steps=3, tasks_at_once=at_once)
    tasks = draw_tasks()
    assert weights_of(learner)[HEAD[0]].shape == (1, 12)
    check_training(learner, tasks, query_loss(tasks, partial(adapted, steps=3)), without_effect=HEAD)


def test_a_test_task_is_learnt_by_the_same_inner_loop() -> None:
    learner, tasks = build(UnicornMAML, inner_rate=RATE, test_inner_steps=4), draw_tasks()
    check_scores(learner, tasks, scores_after(learner, tasks, partial(adapted, steps=4)))


def test_the_row_itself_moves_nothing() -> None:
    """As the class says: a softmax does not see what all rows share, so that any row does what a row of zeros does."""
    learner, tasks = build(UnicornMAML, inner_rate=RATE).eval(), draw_tasks()
    before = learner.scores(tasks).softmax(-1)
    for name in HEAD:
        learner.get_parameter(name).data.zero_()
    close(learner.scores(tasks).softmax(-1), before, "probabilities")


def test_it_learns_tasks_of_any_number_of_classes() -> None:
    learner, tasks = build(UnicornMAML, inner_rate=RATE, test_inner_steps=2).eval(), draw_tasks()
    kept = tasks.support_labels[0] < 2
    two = replace(
        tasks.part(0, 1),
        support=tasks.support[:1, kept],
        support_labels=tasks.support_labels[:1, kept],
        classes=tasks.classes[:1, :2],
    )
    phi = adapted(weights_of(learner), two.support[0], two.support_labels[0], 2, ways=2)
    close(learner.scores(two)[0], scores(phi, two.query[0]), "scores of two classes")
