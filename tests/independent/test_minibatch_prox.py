"""Meta-MinibatchProx (Zhou et al. 2019): Reptile with an inner problem that pulls back to the initialisation."""

from __future__ import annotations

import pytest
import torch
from plain import build, check_step, close, draw_tasks, loss, mean_over_tasks, scores, squared_distance, weights_of
from torch import Tensor
from walk import over_walks, walks

from kshot.learners import MinibatchProx

L2 = 0.7


@over_walks
def test_the_gradient_is_l2_times_theta_minus_the_mean_of_the_weights_reached(
    optimizer: str, size: int, steps: int, at_once: int
) -> None:
    options = {"inner_optimizer": optimizer, "inner_batch": size, "inner_steps": steps, "tasks_at_once": at_once}
    learner, tasks = build(MinibatchProx, ways=3, l2=L2, inner_rate=0.05, **options), draw_tasks(shots=3, queries=0)
    theta, reached, losses = walks(learner, tasks, size=size, steps=steps, optimizer=optimizer, rate=0.05, l2=L2)
    mean = {name: torch.stack([phi[name] for phi in reached]).mean(0) for name in theta}
    check_step(learner, tasks, losses.mean(), {name: L2 * (theta[name] - mean[name]) for name in theta})

    torch.optim.SGD(learner.parameters(), 0.25).step()  # theta = theta - e l2 (theta - mean phi)
    for name, value in weights_of(learner).items():
        if name in theta:
            close(value, theta[name] - 0.25 * L2 * (theta[name] - mean[name]), name)


def test_it_descends_the_least_value_of_the_inner_problem() -> None:
    """With the inner problem solved, l2 (theta - phi) is the gradient of min L(phi) + l2/2 |phi - theta|^2."""
    options = {"inner_optimizer": "sgd", "inner_steps": 60, "inner_batch": 100}
    learner = build(MinibatchProx, ways=3, l2=8.0, inner_rate=0.1, **options)
    tasks = draw_tasks(2, queries=0)

    def least_value() -> Tensor:
        theta, reached, _ = walks(learner, tasks, size=100, steps=60, optimizer="sgd", rate=0.1, l2=8.0)

        def value(task: int) -> Tensor:
            fit = loss(reached[task], tasks.support[task], tasks.support_labels[task])
            return fit + 8.0 / 2 * squared_distance(reached[task], theta)

        return mean_over_tasks(value, tasks)

    learner.accumulate_gradients(tasks)
    for name, parameter in learner.named_parameters():
        direction, values = torch.randn_like(parameter), []
        for step in (1e-5, -2e-5, 1e-5):
            with torch.no_grad():
                parameter += step * direction
            values.append(least_value())
        close((parameter.grad * direction).sum(), (values[0] - values[1]) / 2e-5, name, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_has_steps_and_mini_batches_of_its_own_and_the_pull(at_once: int) -> None:
    options = {"inner_steps": 1, "inner_batch": 2, "test_inner_steps": 6, "test_inner_batch": 5}
    learner = build(MinibatchProx, ways=3, l2=L2, inner_rate=0.05, tasks_at_once=at_once, **options)
    tasks = draw_tasks(shots=3)
    _, reached, _ = walks(learner, tasks, size=5, steps=6, optimizer="adam", rate=0.05, l2=L2)
    for task, actual in enumerate(learner.eval().scores(tasks)):
        close(actual, scores(reached[task], tasks.query[task]), f"task {task}")
