"""iMAML (Rajeswaran et al. 2019): the gradient of the query loss at the optimum of the proximal problem.

At the minimiser phi of L(phi; S) + l2/2 |phi - theta|^2 it is (I + H / l2)^-1 grad L(phi; Q), whatever led to phi
(Lemma 1). Here the Hessian H is written out and the system solved at once.
"""

from __future__ import annotations

import pytest
import torch
from plain import (
    Weights,
    build,
    check_scores,
    check_step,
    check_training,
    draw_tasks,
    loss,
    part,
    scores,
    squared_distance,
    weights_of,
)
from torch import Tensor

from kshot.learners import IMAML


def descended(theta: Weights, images: Tensor, labels: Tensor, l2: float, rate: float, steps: int) -> Weights:
    """Gradient descent on the proximal problem of a task (eq. 3), to be differentiated through."""
    phi = theta
    for _ in range(steps):
        value = loss(phi, images, labels) + l2 / 2 * squared_distance(phi, theta)
        gradients = torch.autograd.grad(value, list(phi.values()), create_graph=True)
        phi = {name: weight - rate * step for (name, weight), step in zip(phi.items(), gradients)}
    return phi


def learner_of(**options: object) -> IMAML:
    """Convolutions of three times the size: BatchNorm takes it out again, but curvature falls to a ninth.

    Conjugate gradients need I + H / l2 to be positive definite, as it is near a minimum.
    """
    learner = build(IMAML, ways=3, **options)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(3 if parameter.dim() == 4 else 1)
    return learner


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("damping", [0.0, 0.8])
def test_the_gradient_solves_the_system_wherever_the_inner_steps_end(damping: float, at_once: int) -> None:
    options = {"l2": 5.0, "inner_rate": 0.15, "inner_steps": 2, "cg_steps": 80}
    learner, tasks = learner_of(damping=damping, tasks_at_once=at_once, **options), draw_tasks()
    theta = part(weights_of(learner), "network.")
    sizes = [weight.numel() for weight in theta.values()]

    def as_weights(flat: Tensor) -> Weights:
        return {name: piece.view_as(theta[name]) for name, piece in zip(theta, flat.split(sizes))}

    losses, total = [], torch.zeros(sum(sizes), dtype=torch.float64)
    for task in range(tasks.tasks):
        images, labels = tasks.support[task], tasks.support_labels[task]
        phi = descended(theta, images, labels, l2=5.0, rate=0.15, steps=2)
        flat = torch.cat([weight.detach().flatten() for weight in phi.values()]).requires_grad_()
        losses.append(loss(as_weights(flat), tasks.query[task], tasks.query_labels[task]))
        (direct,) = torch.autograd.grad(losses[-1], flat)
        hessian = torch.autograd.functional.hessian(lambda flat, x=images, y=labels: loss(as_weights(flat), x, y), flat)
        matrix = torch.eye(len(flat), dtype=torch.float64) * (1 + damping) + hessian / 5.0
        total += torch.linalg.solve(matrix, direct) / tasks.tasks
    check_step(learner, tasks, torch.stack(losses).mean(), as_weights(total), rtol=1e-8)


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("l2", [8.0, 12.0])
def test_at_convergence_it_is_the_gradient_through_all_inner_steps(l2: float, at_once: int) -> None:
    rate, steps = 1 / (l2 + 1), 30
    options = {"l2": l2, "inner_rate": rate, "inner_steps": steps, "cg_steps": 60, "tasks_at_once": at_once}
    learner, tasks = learner_of(**options), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        theta = part(weights, "network.")
        phi = descended(theta, tasks.support[task], tasks.support_labels[task], l2, rate, steps)
        return loss(phi, tasks.query[task], tasks.query_labels[task])

    check_training(learner, tasks, objective, rtol=1e-8)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_is_learnt_on_the_proximal_problem(at_once: int) -> None:
    options = {"l2": 5.0, "inner_rate": 0.15, "inner_steps": 1, "test_inner_steps": 4, "tasks_at_once": at_once}
    learner, tasks = learner_of(**options), draw_tasks()
    theta = part(weights_of(learner), "network.")

    def outputs(task: int, images: Tensor) -> Tensor:
        phi = descended(theta, tasks.support[task], tasks.support_labels[task], l2=5.0, rate=0.15, steps=4)
        return scores(phi, images)

    check_scores(learner, tasks, outputs)
