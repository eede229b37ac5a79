"""TSA-MAML (Zhou et al. 2021, Algorithm 1): a task is served by the initialisation nearest to its estimated optimum."""

from __future__ import annotations

import pytest
import torch
from plain import Weights, build, check_scores, close, draw_tasks, loss, part, scores, squared_distance, weights_of
from torch import Tensor

from kshot.learners import TSAMAML

RATE, GROUPS = 0.2, 3


def descended(phi: Weights, images: Tensor, labels: Tensor, steps: int, exact: bool) -> Weights:
    """Some gradient steps on the support set."""
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=exact)
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return phi


def initialization(weights: Weights, group: int) -> Weights:
    """theta_k, by the names of theta*."""
    beginning = f"initializations.{group}."
    return {f"network.{name.removeprefix(beginning)}": value for name, value in part(weights, beginning).items()}


def group_of(weights: Weights, images: Tensor, labels: Tensor) -> int:
    """k = argmin |theta_i* - theta_k|, theta_i* being four steps from theta*."""
    names = initialization(weights, 0)
    theta_star = {name: weights[name].detach().requires_grad_() for name in names}
    optimum = descended(theta_star, images, labels, 4, exact=False)
    distances = [squared_distance(optimum, initialization(weights, group)) for group in range(GROUPS)]
    return int(torch.stack(distances).argmin())


def learner_of(**options: object) -> TSAMAML:
    given = {"groups": GROUPS, "assignment_steps": 4, "inner_rate": RATE, "inner_steps": 2, "test_inner_steps": 3}
    learner = build(TSAMAML, ways=3, **given, **options)
    # near theta* and apart from each other as the optima of tasks are, so that several groups are used
    learner.start_groups(learner.task_vectors(draw_tasks(GROUPS, seed=1)))
    return learner


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize("first_order", [False, True])
def test_each_group_moves_along_the_gradients_of_its_tasks(first_order: bool, at_once: int) -> None:
    learner, tasks = learner_of(first_order=first_order, tasks_at_once=at_once), draw_tasks(8)
    weights = weights_of(learner)
    losses, chosen, gradients = [], [], {name: torch.zeros_like(value) for name, value in weights.items()}
    for task in range(tasks.tasks):
        images, labels = tasks.support[task], tasks.support_labels[task]
        chosen.append(group_of(weights, images, labels))
        theta = initialization(weights, chosen[-1])
        phi = descended(theta, images, labels, 2, exact=not first_order)
        losses.append(loss(phi, tasks.query[task], tasks.query_labels[task]))
        for name, gradient in zip(theta, torch.autograd.grad(losses[-1], list(theta.values()))):
            name = name.replace("network", f"initializations.{chosen[-1]}")
            gradients[name] += gradient / tasks.tasks
    measured = learner.accumulate_gradients(tasks)
    close(measured["loss"], torch.stack(losses).mean(), "loss")
    assert len(set(chosen)) > 1
    assert learner.usage.tolist() == [chosen.count(group) for group in range(GROUPS)]
    for name, parameter in learner.named_parameters():
        beginning, _, rest = name.partition(".")
        if beginning == "initializations" and int(rest[0]) in chosen:
            close(parameter.grad, gradients[name], name)
        else:
            assert parameter.grad is None, f"{name}: theta* and groups without a task have no gradient"


def test_a_test_task_is_learnt_from_the_initialisation_of_its_group() -> None:
    learner, tasks = learner_of(), draw_tasks(8)
    weights = weights_of(learner)

    def outputs(task: int, images: Tensor) -> Tensor:
        support, labels = tasks.support[task], tasks.support_labels[task]
        theta = initialization(weights, group_of(weights, support, labels))
        return scores(descended(theta, support, labels, 3, exact=False), images)

    check_scores(learner, tasks, outputs)
