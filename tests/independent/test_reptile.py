"""Reptile (Nichol, Achiam and Schulman 2018): theta moves towards the mean of the weights that tasks reach."""

from __future__ import annotations

import pytest
import torch
from plain import build, check_step, close, draw_tasks, loss, mean_over_tasks, part, scores, weights_of
from walk import over_walks, walks

from kshot.learners import Reptile


@over_walks
def test_the_gradient_is_theta_minus_the_mean_of_the_weights_reached(
    optimizer: str, size: int, steps: int, at_once: int
) -> None:
    options = {"inner_optimizer": optimizer, "inner_batch": size, "inner_steps": steps, "tasks_at_once": at_once}
    learner, tasks = build(Reptile, ways=3, inner_rate=0.05, **options), draw_tasks(shots=3, queries=0)
    theta, reached, losses = walks(learner, tasks, size=size, steps=steps, optimizer=optimizer, rate=0.05)
    mean = {name: torch.stack([phi[name] for phi in reached]).mean(0) for name in theta}
    check_step(learner, tasks, losses.mean(), {name: theta[name] - mean[name] for name in theta})

    torch.optim.SGD(learner.parameters(), 0.25).step()  # theta = theta + e (mean phi - theta), Algorithm 2
    for name, value in weights_of(learner).items():
        if name in theta:
            close(value, theta[name] + 0.25 * (mean[name] - theta[name]), name)


@pytest.mark.parametrize("at_once", [1, 2])
def test_one_step_of_sgd_is_the_gradient_of_the_joint_loss(at_once: int) -> None:
    options = {"inner_optimizer": "sgd", "inner_steps": 1, "inner_batch": 100, "tasks_at_once": at_once}
    learner, tasks = build(Reptile, ways=3, inner_rate=0.05, **options), draw_tasks(shots=3, queries=0)
    theta = part(weights_of(learner), "network.")
    joint = mean_over_tasks(lambda task: loss(theta, tasks.support[task], tasks.support_labels[task]), tasks)
    gradients = torch.autograd.grad(joint, list(theta.values()))
    check_step(learner, tasks, joint, {name: 0.05 * gradient for name, gradient in zip(theta, gradients)})


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_has_steps_and_mini_batches_of_its_own(at_once: int) -> None:
    options = {"inner_steps": 1, "inner_batch": 2, "test_inner_steps": 6, "test_inner_batch": 5}
    learner = build(Reptile, ways=3, inner_rate=0.05, tasks_at_once=at_once, **options)
    tasks = draw_tasks(shots=3)
    _, reached, _ = walks(learner, tasks, size=5, steps=6, optimizer="adam", rate=0.05)
    for task, actual in enumerate(learner.eval().scores(tasks)):
        close(actual, scores(reached[task], tasks.query[task]), f"task {task}")
